//! What a client or a sender asks of the store, in a form that the model understands as well.

use std::future::Future;
use std::pin::Pin;

use pillarbox::mail::address::Address;
use pillarbox::mail::mailbox::{AccountId, MailboxId, MailboxName, ModSeq, Quota, SpecialUse, Uid};
use pillarbox::mail::message::{FlagMode, Placed, UidSet};
use pillarbox::mail::queue::{Delivery, QueueId, QueueOrder};
use pillarbox::mail::secret::ScramVerifier;
use pillarbox::store::{Alias, Parcel, Store, WriteError};

use super::letter::{Letter, Marks};
use super::outgoing::envelope;

/// A mailbox: its number in the store and the model's own mark of it, which no rename changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: u32,
    pub(crate) birth: u32,
}

/// Where a delivery goes.
#[derive(Clone, Debug)]
pub(crate) enum Into {
    Inbox,
    Special(SpecialUse),
    Named(String),
}

#[derive(Debug)]
pub(crate) enum Command {
    AddAccount {
        name: String,
        salt: u8,
        quota: Option<u64>,
    },
    RemoveAccount {
        account: u32,
    },
    SetVerifier {
        account: u32,
        salt: u8,
    },
    SetQuota {
        account: u32,
        messages: Option<u64>,
    },
    PutAlias {
        name: String,
        targets: Vec<(u32, String)>,
    },
    RemoveAlias {
        name: String,
    },
    Deliver {
        letter: Letter,
        to: Vec<(u32, Into)>,
    },
    Append {
        place: Place,
        letters: Vec<Letter>,
    },
    Flag {
        place: Place,
        uids: Vec<u32>,
        mode: FlagMode,
        marks: Marks,
        unchanged_since: Option<u64>,
    },
    Transfer {
        from: Place,
        uids: Vec<u32>,
        to: Place,
        remove: bool,
    },
    Expunge {
        place: Place,
        uids: Option<Vec<u32>>,
    },
    Remove {
        place: Place,
        uids: Vec<u32>,
    },
    Create {
        account: u32,
        name: String,
    },
    Delete {
        account: u32,
        name: String,
    },
    Rename {
        account: u32,
        from: String,
        to: String,
    },
    Subscribe {
        account: u32,
        name: String,
        on: bool,
    },
    Note {
        name: String,
        value: Vec<u8>,
    },
    /// Mail for accounts and others' servers, with the copies that lists make of it; a notification when it is
    /// `about` another.
    Submit {
        parts: Vec<Part>,
        about: Option<(u64, Vec<(u32, Delivery)>)>,
    },
    Update {
        id: u64,
        states: Vec<(u32, Delivery)>,
    },
    Order {
        id: u64,
        order: QueueOrder,
    },
    Cancel {
        id: u64,
    },
    Learn {
        learner: Option<u32>,
        pieces: Vec<(u16, Vec<u8>)>,
    },
    Forget {
        learner: Option<u32>,
    },
}

/// A message of a submission, and where it goes.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) letter: Letter,
    pub(crate) local: Vec<(u32, Into)>,
    pub(crate) by: Option<u32>,
    pub(crate) to: Vec<String>,
    pub(crate) due: u64,
    pub(crate) held: bool,
}

impl Part {
    fn parcel(&mut self) -> Parcel {
        let Self { letter, local, by, to, due, held } = self;
        let queued = (!to.is_empty()).then(|| envelope(*by, to, *due)).into_iter().collect();
        Parcel { message: letter.message(), local: folders(local), queued, held: *held }
    }
}

/// What the store answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    Account(u32),
    Created,
    /// (mailbox, uid) for each recipient.
    Delivered(Vec<(u32, u32)>),
    Appended(Vec<u32>),
    Transferred {
        from: Vec<u32>,
        to: Vec<u32>,
    },
    Flagged {
        modified: Vec<u32>,
    },
    Removed(Vec<u32>),
    Submitted {
        kept: Vec<(u32, u32)>,
        queued: Vec<u64>,
    },
    /// Recipients that are unsettled, or that an order concerned.
    Recipients(u32),
}

/// An answer to come.
pub(crate) type Coming = Pin<Box<dyn Future<Output = Result<Reply, WriteError>>>>;

pub(crate) fn set_of(uids: &[u32]) -> UidSet {
    uids.iter().filter_map(|uid| Uid::new(*uid)).collect()
}

fn uids(set: &UidSet) -> Vec<u32> {
    set.iter().map(Uid::get).collect()
}

pub(crate) fn verifier(salt: u8) -> ScramVerifier {
    ScramVerifier { salt: [salt; 16], iterations: 4096, stored_key: [2; 32], server_key: [3; 32] }
}

pub(crate) fn address(name: &str) -> Address {
    Address::parse(&format!("{name}@pillar.test")).expect("an address")
}

fn mailbox_name(name: &str) -> MailboxName {
    MailboxName::new(name).expect("a mailbox name")
}

fn placed(placed: &Placed) -> Reply {
    Reply::Transferred { from: uids(&placed.from), to: uids(&placed.to) }
}

impl Command {
    /// Sends it to the store. A letter can be sent once.
    pub(crate) fn send(&mut self, store: &Store) -> Coming {
        match self {
            Self::AddAccount { name, salt, quota } => {
                let quota = Quota { bytes: None, messages: *quota };
                let pending = store.add_account(address(name), verifier(*salt), quota);
                Box::pin(async { pending.await.map(|id| Reply::Account(id.0)) })
            }
            Self::RemoveAccount { account } => done(store.remove_account(AccountId(*account))),
            Self::SetVerifier { account, salt } => done(store.set_verifier(AccountId(*account), verifier(*salt))),
            Self::SetQuota { account, messages } => {
                done(store.set_quota(AccountId(*account), Quota { bytes: None, messages: *messages }))
            }
            Self::PutAlias { name, targets } => {
                let targets = targets.iter().map(|(_, name)| address(name)).collect();
                done(store.put_alias(Alias { address: address(name), targets }))
            }
            Self::RemoveAlias { name } => done(store.remove_alias(address(name))),
            Self::Deliver { letter, to } => {
                let pending = store.deliver(letter.message(), folders(to));
                Box::pin(async { Ok(Reply::Delivered(numbers(&pending.await?))) })
            }
            Self::Append { place, letters } => {
                let messages = letters.iter_mut().map(Letter::message).collect();
                let pending = store.append(MailboxId(place.id), messages);
                Box::pin(async { Ok(Reply::Appended(uids(&pending.await?.to))) })
            }
            Self::Flag { place, uids: which, mode, marks, unchanged_since } => {
                let since = unchanged_since.map(ModSeq);
                let pending = store.flag(MailboxId(place.id), set_of(which), *mode, marks.names(), since);
                Box::pin(async { Ok(Reply::Flagged { modified: uids(&pending.await?.modified) }) })
            }
            Self::Transfer { from, uids, to, remove } => {
                let (from, to, uids) = (MailboxId(from.id), MailboxId(to.id), set_of(uids));
                let pending = if *remove { store.relocate(from, uids, to) } else { store.copy(from, uids, to) };
                Box::pin(async { Ok(placed(&pending.await?)) })
            }
            Self::Expunge { place, uids: which } => {
                let pending = store.expunge(MailboxId(place.id), which.as_deref().map(set_of));
                Box::pin(async { Ok(Reply::Removed(uids(&pending.await?))) })
            }
            Self::Remove { place, uids: which } => {
                let pending = store.remove(MailboxId(place.id), set_of(which));
                Box::pin(async { Ok(Reply::Removed(uids(&pending.await?))) })
            }
            Self::Create { account, name } => {
                let pending = store.create_mailbox(AccountId(*account), mailbox_name(name), None);
                Box::pin(async { pending.await.map(|_| Reply::Created) })
            }
            Self::Delete { account, name } => done(store.delete_mailbox(AccountId(*account), mailbox_name(name))),
            Self::Rename { account, from, to } => {
                done(store.rename_mailbox(AccountId(*account), mailbox_name(from), mailbox_name(to)))
            }
            Self::Subscribe { account, name, on } => {
                done(store.subscribe(AccountId(*account), mailbox_name(name), *on))
            }
            Self::Note { name, value } => done(store.put_note(name, value.clone())),
            Self::Submit { parts, about } => {
                let mut parcels = parts.iter_mut().map(Part::parcel).collect::<Vec<_>>();
                let pending = match about {
                    Some((id, states)) => {
                        let Parcel { message, local, mut queued, .. } = parcels.remove(0);
                        store.report(message, local, queued.pop(), QueueId(*id), states.clone())
                    }
                    None => store.submit_all(parcels),
                };
                Box::pin(async {
                    let done = pending.await?;
                    let queued = done.all_queued.iter().map(|id| id.0).collect();
                    Ok(Reply::Submitted { kept: numbers(&done.placed), queued })
                })
            }
            Self::Update { id, states } => counted(store.update_queued(QueueId(*id), states.clone())),
            Self::Order { id, order } => counted(store.order_queued(QueueId(*id), *order)),
            Self::Cancel { id } => done(store.remove_queued(QueueId(*id))),
            Self::Learn { learner, pieces } => done(store.save_learned(learner.map(AccountId), pieces.clone())),
            Self::Forget { learner } => done(store.forget_learned(learner.map(AccountId))),
        }
    }
}

fn folders(to: &[(u32, Into)]) -> Vec<(AccountId, pillarbox::store::Folder)> {
    let folder = |into: &Into| match into {
        Into::Inbox => pillarbox::store::Folder::Inbox,
        Into::Special(special) => pillarbox::store::Folder::Special(*special),
        Into::Named(name) => pillarbox::store::Folder::Named(mailbox_name(name)),
    };
    to.iter().map(|(account, into)| (AccountId(*account), folder(into))).collect()
}

fn numbers(placed: &[(MailboxId, Uid)]) -> Vec<(u32, u32)> {
    placed.iter().map(|(mailbox, uid)| (mailbox.0, uid.get())).collect()
}

fn counted(pending: pillarbox::store::Pending<u32>) -> Coming {
    Box::pin(async { pending.await.map(Reply::Recipients) })
}

fn done(pending: pillarbox::store::Pending<()>) -> Coming {
    Box::pin(async { pending.await.map(|()| Reply::Done) })
}
