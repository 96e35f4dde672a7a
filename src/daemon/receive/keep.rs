//! The end of a message: it is scanned, kept for the accounts here and queued for others' servers in one change; then
//! lists get their copies, and who asked for it is told.

use super::office::Submission;
use super::{Incoming, Reception, lost, unreadable};
use crate::daemon::fresh::{new_id, now};
use crate::daemon::guard::Passed;
use crate::filter::sender::Action;
use crate::flow::brake::Pace;
use crate::flow::judge::Fate;
use crate::flow::letter::{Letter, LetterError};
use crate::flow::{notify, post};
use crate::mail::address::Address;
use crate::mail::envelope::{BodyType, Envelope, Recipient, ReversePath};
use crate::mail::mailbox::{AccountId, MailboxId, SpecialUse, Uid};
use crate::mail::queue::{Due, NewQueued, QueueId, QueueOrder};
use crate::protocol::smtp::Reply;
use crate::store::{Folder, NewMessage};

/// How long mail that is to be held would wait, if the power failed before it is, in milliseconds.
const HELD_MS: u64 = 3_600_000;

/// A message that was kept.
#[derive(Debug)]
struct Kept {
    /// Where it stands here.
    placed: Vec<(MailboxId, Uid)>,
    /// It was put aside by the scan and goes nowhere else.
    aside: bool,
}

impl Reception {
    pub(super) async fn finish(&mut self) -> Result<(), Reply> {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.letter.as_ref().is_some_and(|letter| letter.waits()))
        {
            self.judge(true).await?;
        }
        self.look_again().await?;
        let Some(mut incoming) = self.incoming.take() else { return Err(lost()) };
        let Some(letter) = incoming.letter.take() else { return Err(lost()) };
        let sender = self.sender.take();
        let accounts = std::mem::take(&mut self.targets);
        let size = letter.size();
        let require_tls = sender.as_ref().is_some_and(|sender| sender.require_tls);
        let mut queued = self.to_queue(&letter, &incoming.envelope, require_tls);
        let held = self.is_too_much(&incoming, &mut queued)?;
        let posts = self.finish_posts(&mut incoming, accounts.is_empty() && queued.is_empty()).await?;
        let junk = |account: &&AccountId| incoming.is_junk(**account);
        let mut kept = self.keep(letter, &accounts, (queued, held), &incoming).await;
        if kept.as_ref().is_ok_and(|kept| !kept.aside)
            && let Err(error) = self.keep_posts(posts).await
        {
            kept = Err(error);
        }
        match &kept {
            Ok(Kept { placed, aside }) => {
                // Mail that looks like spam confirms nothing to whoever sent it, nor does what was put aside.
                if !aside && !accounts.iter().any(|account| junk(&account)) {
                    self.confirm(&incoming.envelope, placed).await;
                }
                tracing::info!(
                    id = %incoming.id,
                    from = %incoming.envelope.from,
                    recipients = incoming.envelope.recipients.len(),
                    accounts = accounts.len(),
                    queued = self.remote.len() + self.copies.len(),
                    junk = accounts.iter().filter(junk).count(),
                    size,
                    "message kept"
                );
                // Whoever was written to is known to the spam filter from now on.
                if let Some(login) = sender.and_then(|sender| sender.login) {
                    let recipients = incoming.envelope.recipients.iter();
                    let addresses = recipients.filter_map(|recipient| recipient.path.address().cloned());
                    self.office.teacher.wrote_to(login.account, addresses.collect());
                }
            }
            Err(error) => {
                let reply = error.reply();
                incoming.log_failure(error, &reply);
                return Err(reply);
            }
        }
        Ok(())
    }

    /// What of the message goes on to others' servers: by itself, and with the senders that aliases give it.
    fn to_queue(&self, letter: &Letter, envelope: &Envelope, require_tls: bool) -> Vec<NewQueued> {
        // What the content needs is asked of the next server, not what its sender declared.
        let nature = letter.nature(envelope.utf8);
        let body = match envelope.body {
            BodyType::BinaryMime if nature.binary => BodyType::BinaryMime,
            _ if nature.eight_bit => BodyType::EightBitMime,
            _ => BodyType::SevenBit,
        };
        let by = self.by;
        let mut groups: Vec<(ReversePath, Vec<Recipient>)> = Vec::new();
        let own = self.remote.iter().map(|recipient| (&envelope.from, recipient));
        for (from, recipient) in own.chain(self.copies.iter().map(|(from, recipient)| (from, recipient))) {
            match groups.iter_mut().find(|(known, _)| known == from) {
                Some((_, recipients)) => recipients.push(recipient.clone()),
                None => groups.push((from.clone(), vec![recipient.clone()])),
            }
        }
        let queued = groups.into_iter().map(|(from, recipients)| {
            let international = from.address().is_some_and(Address::is_international);
            let utf8 = nature.utf8_header || international;
            let envelope = Envelope { from, recipients, body, utf8, ..envelope.clone() };
            NewQueued { envelope, require_tls, by, due: Due::from(now()) }
        });
        queued.collect()
    }

    /// Counts what an account sends to others' servers. Tells whether it is to be held.
    fn is_too_much(&self, incoming: &Incoming, queued: &mut [NewQueued]) -> Result<bool, Reply> {
        let Some(account) = self.by else { return Ok(false) };
        let recipients = queued.iter().map(|new| new.envelope.recipients.len()).sum::<usize>();
        let Submission { brake, since, .. } = &*self.office.submission;
        match brake.count(account, u32::try_from(recipients).unwrap_or(u32::MAX), since.elapsed().as_secs()) {
            Pace::Free => Ok(false),
            Pace::Held => {
                tracing::warn!(
                    id = %incoming.id, from = %incoming.envelope.from, recipients,
                    "an account sends too much: its mail is held until `pillarbox queue release`; has somebody \
                     found its password?"
                );
                for new in queued {
                    new.due = Due(new.due.0.saturating_add(HELD_MS));
                }
                Ok(true)
            }
            Pace::Refused => {
                let reply = Reply::new(452, "4.7.1", "too many recipients for now: ask the postmaster");
                incoming.log_refusal(&reply);
                Err(reply)
            }
        }
    }

    /// Holds what was queued.
    async fn hold(&self, ids: &[QueueId]) {
        for id in ids {
            if let Err(error) = self.office.store.order_queued(*id, QueueOrder::Hold).await {
                tracing::error!(queue = %id, %error, "a message that is to be held is not");
            }
        }
    }

    /// Ends the copies for lists. Mail that looks like spam goes to none; `alone` says that it goes nowhere
    /// else.
    async fn finish_posts(&self, incoming: &mut Incoming, alone: bool) -> Result<Vec<post::Ready>, Reply> {
        let posts = std::mem::take(&mut incoming.posts);
        if posts.is_empty() {
            return Ok(Vec::new());
        }
        let is_doubtful = incoming.looked.as_ref().is_some_and(|looked| looked.standing.action != Action::Accept);
        if is_doubtful || incoming.verdict.as_ref().is_some_and(|verdict| verdict.told != Fate::Accept) {
            let reply = Reply::new(554, "5.7.1", "this looks like spam or a forgery and goes to no list");
            incoming.log_refusal(&reply);
            return if alone { Err(reply) } else { Ok(Vec::new()) };
        }
        let by = self.by;
        let (store, due) = (self.office.store.clone(), Due::from(now()));
        let working = tokio::task::spawn_blocking(move || {
            let reader = store.reader().map_err(|error| unreadable(&error))?;
            posts.into_iter().map(|post| post.finish(&reader, by, due)).collect::<Result<Vec<_>, Reply>>()
        });
        working.await.map_err(|_| lost())?.inspect_err(|reply| incoming.log_refusal(reply))
    }

    async fn keep_posts(&self, posts: Vec<post::Ready>) -> Result<(), LetterError> {
        for post::Ready { message, accounts, queued } in posts {
            let (members, elsewhere) = (accounts.len(), queued.as_ref().map_or(0, |new| new.envelope.recipients.len()));
            let to = accounts.into_iter().map(|account| (account, Folder::Inbox)).collect();
            self.office.store.submit(message, to, queued).await.map_err(LetterError::Spool)?;
            tracing::info!(members, elsewhere, "message went to a list");
        }
        Ok(())
    }

    /// Tells the sender who has the message, if that was asked for. The notification is kept before the
    /// message is acknowledged, so it is not lost.
    async fn confirm(&self, envelope: &Envelope, placed: &[(MailboxId, Uid)]) {
        let Some(&(mailbox, uid)) = placed.first().filter(|_| !self.local.is_empty()) else { return };
        let (exit, envelope, local) = (self.office.exit.clone(), envelope.clone(), self.local.clone());
        let fresh = notify::Fresh { id: new_id(), now: now() };
        let working = tokio::task::spawn_blocking(move || {
            let message = exit.store.reader()?.message(mailbox, uid)?;
            message.map_or(Ok(None), |message| notify::delivered(&exit, &envelope, &local, message.blob, &fresh))
        });
        let Ok(ready) = working.await else { return };
        let kept = match ready {
            Ok(Some(notify::Ready { message: Some(message), local, queued, .. })) => {
                self.office.store.submit(message, local, queued).await.map(drop).map_err(notify::NotifyError::Write)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the sender was not told that a message arrived");
        }
    }

    async fn keep(
        &self,
        letter: Box<Letter>,
        accounts: &[AccountId],
        (queued, held): (Vec<NewQueued>, bool),
        incoming: &Incoming,
    ) -> Result<Kept, LetterError> {
        let results = incoming.looked.as_ref().filter(|_| incoming.restated).map(|looked| looked.field.clone());
        let message: NewMessage = if letter.is_on_disk() || results.is_some() {
            let spool = results.is_some().then(|| self.office.store.spool()).transpose().map_err(LetterError::Spool)?;
            let working = tokio::task::spawn_blocking(move || match (results, spool) {
                (Some(results), Some(spool)) => letter.finish_with(&results, spool),
                _ => letter.finish(),
            });
            working.await.map_err(|_| LetterError::Spool(crate::store::WriteError::Closed))??
        } else {
            letter.finish()?
        };
        let folder = |account| {
            if incoming.is_junk(account) { Folder::Special(SpecialUse::Junk) } else { Folder::Inbox }
        };
        let to = accounts.iter().map(|&account| (account, folder(account))).collect();
        let passed = match &self.office.guard {
            Some(guard) => guard.pass(message, to).await.map_err(LetterError::Scanned)?,
            None => Passed { message, to, aside: false, told: None },
        };
        let Passed { message, to, aside, told } = passed;
        let kept = if queued.is_empty() || aside {
            self.office.store.deliver(message, to).await
        } else {
            let submitted = self.office.store.submit(message, to, queued).await;
            if let (Ok(submitted), true) = (&submitted, held) {
                self.hold(&submitted.all_queued).await;
            }
            submitted.map(|submitted| submitted.placed)
        };
        if let (Ok(_), Some(guard)) = (&kept, &self.office.guard) {
            guard.tell(told).await;
        }
        kept.map(|placed| Kept { placed, aside }).map_err(LetterError::Spool)
    }
}
