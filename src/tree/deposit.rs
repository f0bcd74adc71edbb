//! Uploads that take more than one request: content that waits in staging for the rest of it.

use super::check::Found;
use super::host::{File, How, Staged};
use super::{Claim, EditMode, Error, Kind, Result, Upload, View};
use crate::domain::{Operation, Permission, TreePath};

/// Content that waits in staging from one request to the next: it has no place, nobody sees it, and it holds no
/// file open. Dropping it discards it.
#[derive(Debug)]
pub struct Deposit {
    staged: Staged,
}

impl Deposit {
    /// Returns how many bytes it has.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn size(&self) -> Result<u64> {
        Ok(self.open(How::Read)?.stat()?.size)
    }

    pub(super) fn new(staged: Staged) -> Self {
        Self { staged }
    }

    pub(super) fn open(&self, how: How) -> Result<File> {
        let (folder, name) = self.staged.place();
        Ok(folder.open(name, how)?)
    }

    pub(super) fn into_staged(self) -> Staged {
        self.staged
    }
}

impl View {
    /// Begins an upload that replaces a file by a copy of which a part was changed. Returns also the file's size;
    /// 0 where there is none yet. What the copy keeps can be compared with what the client guesses of it: where a
    /// file is there, it has to be one that may be read.
    ///
    /// # Errors
    /// As for [`View::stage`]; [`Error::Forbidden`] also where what is there may not be read. Its commit fails with
    /// [`Error::Precondition`] when the file has changed meanwhile.
    pub fn stage_over(&self, path: &TreePath, claim: &Claim<'_>) -> Result<(Upload, u64)> {
        let (spot, stat) = self.writable(path)?;
        self.unlocked_put(&spot, stat.as_ref(), claim)?;
        let Some(stat) = stat.filter(|stat| stat.kind == Some(Kind::File)) else {
            return Ok((Upload::begin(self, path, &spot, None, claim)?, 0));
        };
        if !spot.permission.allows(Permission::RW) {
            self.tell(Operation::Read, path);
            return Err(Error::Forbidden);
        }
        let (file, permission) = (spot.folder.open(&spot.name, How::Read)?, spot.permission);
        let found = Found { stat: file.stat()?, file, path: spot.path.clone(), permission };
        Ok((Upload::of_copy(self, path, &spot, &found, EditMode::default(), claim)?, stat.size))
    }

    /// Goes on with an upload that was set aside. Rights and locks are asked anew, by whatever session this is.
    ///
    /// # Errors
    /// As for [`View::stage`]; with the deposit, which is kept.
    pub fn take_up(
        &self,
        deposit: Deposit,
        path: &TreePath,
        claim: &Claim<'_>,
    ) -> std::result::Result<Upload, Box<(Error, Deposit)>> {
        let place = || {
            let (spot, stat) = self.writable(path)?;
            self.unlocked_put(&spot, stat.as_ref(), claim)?;
            Ok((spot, stat))
        };
        match place() {
            Ok((spot, stat)) => Upload::resume(self, path, &spot, stat.as_ref(), deposit, claim),
            Err(error) => Err(Box::new((error, deposit))),
        }
    }

    /// Tells that the session may write anywhere at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] otherwise.
    pub fn may_deposit(&self) -> Result<()> {
        let may = self.session().access()?.roots().iter().any(|root| root.permission.allows(Permission::W));
        if may { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Makes room for content whose place is not known yet, for one who may write anywhere at all.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one who may write nowhere.
    pub fn deposit(&self) -> Result<Deposit> {
        self.may_deposit()?;
        let root = self.host().root();
        let (_, staged) = self.host().staging(root, root.stat()?.mount())?.make_file()?;
        Ok(Deposit { staged })
    }

    /// Writes all of `data` at an offset of a deposit.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`]; [`Error::Ended`] once the session's token is dead.
    pub fn write_deposit(&self, deposit: &Deposit, data: &[u8], offset: u64) -> Result<()> {
        self.session().access()?;
        self.session().used();
        self.may_hold(offset.saturating_add(data.len() as u64))?;
        Ok(deposit.open(How::Write)?.write_at(data, offset)?)
    }
}
