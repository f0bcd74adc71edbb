//! Turns in which russh computes for callers who have not logged in: so few at once that they hold up nobody else.
//!
//! A key exchange costs the server a thousand times what it costs to ask for one, and a caller may ask for another
//! before he logs in. russh computes when bytes come in, so that these wait for a turn ([`super::wire`]), which ends when
//! russh writes, or asks for more: whoever sends slowly, or nothing, holds none. An address has one turn at a time,
//! whatever it has connections, and the addresses are served in the order in which they come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::net::address_network;

/// Turns of all callers who have not logged in. Clones share them.
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

/// One turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct PreauthSlot {
    _total: OwnedSemaphorePermit,
    _address: OwnedSemaphorePermit,
}

/// One connection's claim to turns.
#[derive(Debug)]
pub(super) struct PreauthSlotClaim {
    slots: PreauthSlots,
    address: IpAddr,
    address_slot: Arc<Semaphore>,
}

impl PreauthSlots {
    /// Returns turns of which so many are taken at once.
    pub(super) fn new(total: usize) -> Self {
        Self { total: Arc::new(Semaphore::new(total)), addresses: Arc::default() }
    }

    /// Returns turns that take half of the processors, one at the least.
    pub(super) fn for_half_the_cpus() -> Self {
        Self::new((thread::available_parallelism().map_or(1, usize::from) / 2).max(1))
    }

    /// Returns the claim of a connection from this address; a /64 of IPv6 counts as one.
    pub(super) fn claim(&self, address: IpAddr) -> PreauthSlotClaim {
        let address = address_network(address);
        let mut addresses = self.addresses.lock();
        let entry = addresses
            .entry(address)
            .or_insert_with(|| PreauthAddress { connections: 0, slot: Arc::new(Semaphore::new(1)) });
        entry.connections += 1;
        PreauthSlotClaim { slots: self.clone(), address, address_slot: Arc::clone(&entry.slot) }
    }
}

impl PreauthSlotClaim {
    /// Waits for a turn.
    pub(super) fn acquire(&self) -> Pin<Box<dyn Future<Output = Option<PreauthSlot>> + Send + Sync>> {
        let (address_slot, total) = (Arc::clone(&self.address_slot), Arc::clone(&self.slots.total));
        Box::pin(async move {
            // The address first: its connections wait for each other, and one of them for other addresses.
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
            if address.connections == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// Turn that a connection has, is waiting for, or needs no more.
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
    /// Returns that of a connection which has no turn yet.
    pub(super) fn new(claim: PreauthSlotClaim) -> Self {
        Self { claim, waiting: None }
    }

    /// Polls for a turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<PreauthSlot>> {
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
        let first = poll_once(&mut states[0]).expect("a turn");
        assert!(states[1..].iter_mut().all(|state| poll_once(state).is_none()), "one of an address");
        let mut other = state_of("192.0.2.1");
        let second = poll_once(&mut other).expect("another address");
        let mut third = state_of("192.0.2.2");
        assert!(poll_once(&mut third).is_none(), "two in all");
        drop(first);
        let third = poll_once(&mut third).expect("it has waited longest for one of the two");
        assert!(poll_once(&mut states[1]).is_none(), "its address is free, and both turns are taken");
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
            let slot = poll_once(&mut holder).expect("a turn");
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
