//! Slots in which russh computes for unauthenticated clients: so few at once that they don't slow down anybody else.
//!
//! A key exchange costs the server a thousand times what a request for one costs the client, which may ask for another
//! before it logs in. russh computes when bytes arrive, so that bytes wait for a slot (`monitored_stream`).
//! The slot is released when russh writes or reads on: a client that sends slowly or nothing holds none. An address has
//! one slot at a time, however many connections it has, and addresses are served in the order of their requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::address_network;

/// Slots of all unauthenticated clients; clones share them.
#[derive(Clone, Debug)]
pub(super) struct PreauthSlots {
    total: Arc<Semaphore>,
    addresses: Arc<Mutex<HashMap<IpAddr, PreauthAddress>>>,
}

#[derive(Debug)]
struct PreauthAddress {
    connections: usize,
    slot: Arc<Semaphore>,
}

/// A slot; released when dropped.
#[derive(Debug)]
pub(super) struct PreauthSlot {
    _total: OwnedSemaphorePermit,
    _address: OwnedSemaphorePermit,
}

/// Registration of a connection that may acquire slots; its address is forgotten with its last one.
#[derive(Debug)]
pub(super) struct PreauthSlotClaim {
    slots: PreauthSlots,
    address: IpAddr,
    address_slot: Arc<Semaphore>,
}

impl PreauthSlots {
    /// Returns `total` slots.
    pub(super) fn new(total: usize) -> Self {
        Self { total: Arc::new(Semaphore::new(total)), addresses: Arc::default() }
    }

    /// Returns a slot for every second CPU, at least one.
    pub(super) fn for_half_the_cpus() -> Self {
        Self::new((thread::available_parallelism().map_or(1, usize::from) / 2).max(1))
    }

    /// Registers a connection from an address; a /64 of IPv6 counts as one address.
    pub(super) fn claim(&self, address: IpAddr) -> PreauthSlotClaim {
        let address = address_network(address);
        // Under one lock with the count: an entry that is being removed must not be handed out again.
        let mut addresses = self.addresses.lock();
        let entry = addresses
            .entry(address)
            .or_insert_with(|| PreauthAddress { connections: 0, slot: Arc::new(Semaphore::new(1)) });
        entry.connections += 1;
        PreauthSlotClaim { slots: self.clone(), address, address_slot: Arc::clone(&entry.slot) }
    }
}

impl PreauthSlotClaim {
    /// Waits for a slot.
    pub(super) fn acquire(&self) -> Pin<Box<dyn Future<Output = Option<PreauthSlot>> + Send + Sync>> {
        let (address_slot, total) = (Arc::clone(&self.address_slot), Arc::clone(&self.slots.total));
        Box::pin(async move {
            // The address first: one connection of an address at a time may stand in the queue of all addresses.
            let address_permit = address_slot.acquire_owned().await.ok()?;
            let total_permit = total.acquire_owned().await.ok()?;
            Some(PreauthSlot { _total: total_permit, _address: address_permit })
        })
    }
}

impl Drop for PreauthSlotClaim {
    fn drop(&mut self) {
        let mut addresses = self.slots.addresses.lock();
        if let Some(address) = addresses.get_mut(&self.address) {
            address.connections -= 1;
            // The table is bounded by the open connections.
            if address.connections == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// A connection's claim, and the acquisition that it is waiting for.
pub(super) struct PreauthSlotState {
    claim: PreauthSlotClaim,
    waiting: Option<Pin<Box<dyn Future<Output = Option<PreauthSlot>> + Send + Sync>>>,
}

impl std::fmt::Debug for PreauthSlotState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreauthSlotState").field("waiting", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

impl PreauthSlotState {
    /// Returns the state of a connection that is not waiting for a slot.
    pub(super) fn new(claim: PreauthSlotClaim) -> Self {
        Self { claim, waiting: None }
    }

    /// Polls for a slot.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<PreauthSlot>> {
        // Kept across polls: a new acquisition would go to the end of the queue each time.
        let waiting = self.waiting.get_or_insert_with(|| self.claim.acquire());
        let slot = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    /// Polls once.
    fn poll_once(state: &mut PreauthSlotState) -> Option<PreauthSlot> {
        match state.poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(slot) => slot,
            Poll::Pending => None,
        }
    }

    #[test]
    fn each_address_holds_one_slot_at_a_time() {
        let slots = PreauthSlots::new(2);
        let state_of = |text| PreauthSlotState::new(slots.claim(address(text)));
        let mut states: Vec<_> = (0..10).map(|_| state_of("2001:db8::1")).collect();
        let first = poll_once(&mut states[0]).expect("a slot");
        assert!(states[1..].iter_mut().all(|state| poll_once(state).is_none()), "one of an address");
        let mut other = state_of("192.0.2.1");
        let second = poll_once(&mut other).expect("another address");
        let mut third = state_of("192.0.2.2");
        assert!(poll_once(&mut third).is_none(), "two in all");
        drop(first);
        let third = poll_once(&mut third).expect("it has waited longest for one of the two");
        assert!(poll_once(&mut states[1]).is_none(), "its address is free, and both slots are taken");
        drop(second);
        assert!(poll_once(&mut states[1]).is_some());
        drop(third);
    }

    #[test]
    fn dropped_claims_leave_no_entries() {
        let slots = PreauthSlots::new(1);
        let (mut first_address, mut second_address) = (address("192.0.2.1"), address("2001:db8::2"));
        for _ in 0..3 {
            let mut holder = PreauthSlotState::new(slots.claim(first_address));
            let slot = poll_once(&mut holder).expect("a slot");
            let mut waiting = PreauthSlotState::new(slots.claim(second_address));
            assert!(poll_once(&mut waiting).is_none());
            drop((waiting, holder));
            drop(slot);
            std::mem::swap(&mut first_address, &mut second_address);
        }
        assert!(slots.addresses.lock().is_empty());
        assert_eq!(slots.total.available_permits(), 1);
    }
}
