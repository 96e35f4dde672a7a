//! The end of a message: it is scanned, and then kept for the accounts here, queued for others' servers, handed to the
//! members of lists and confirmed to whoever asked for that, all in one change. So a crash leaves all of it or nothing,
//! and a sender who hears no 250 and tries again gives nobody the message twice.

use super::office::Submission;
use super::{Incoming, Reception, lost, unreadable};
use crate::daemon::fresh::{new_id, now};
use crate::daemon::guard::Passed;
use crate::filter::sender::Action;
use crate::flow::brake::Pace;
use crate::flow::judge::Fate;
use crate::flow::letter::{Letter, LetterError};
use crate::flow::notify;
use crate::mail::address::Address;
use crate::mail::envelope::{BodyType, Envelope, Recipient, ReversePath};
use crate::mail::mailbox::{AccountId, SpecialUse};
use crate::mail::queue::{Due, NewQueued, Submitter};
use crate::protocol::smtp::Reply;
use crate::store::{Folder, NewMessage, Parcel, WriteError};

/// Where a message goes besides the mailboxes of its recipients here.
#[derive(Debug)]
struct Further {
    /// To others' servers.
    queued: Vec<NewQueued>,
    /// What goes there is held.
    held: bool,
    /// Copies for lists, and what is told of them.
    posts: Vec<Parcel>,
    /// REQUIRETLS was asked for (RFC 8689).
    require_tls: bool,
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
        let queued = self.to_queue(&letter, &incoming.envelope, require_tls);
        let lists = incoming.posts.len();
        let posts = self.finish_posts(&mut incoming, require_tls, accounts.is_empty() && queued.is_empty()).await?;
        let held = self.is_too_much(&incoming, &queued, &posts)?;
        let further = Further { queued, held, posts, require_tls };
        let kept = self.keep(letter, &accounts, further, &incoming).await;
        match &kept {
            Ok(()) => {
                if let Some(looked) = &incoming.looked {
                    self.visit.count(looked);
                }
                tracing::info!(
                    id = %incoming.id,
                    from = %incoming.envelope.from,
                    recipients = incoming.envelope.recipients.len(),
                    accounts = accounts.len(),
                    queued = self.remote.len() + self.copies.len(),
                    lists,
                    junk = accounts.iter().filter(|account| incoming.is_junk(**account)).count(),
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
        let by = self.submitter();
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

    /// Counts what an account sends to others' servers, by itself and by way of lists: one letter to a list is as many
    /// as it has members there. Tells whether it is to be held.
    fn is_too_much(&self, incoming: &Incoming, queued: &[NewQueued], posts: &[Parcel]) -> Result<bool, Reply> {
        let Some(account) = self.by else { return Ok(false) };
        let all = queued.iter().chain(posts.iter().flat_map(|post| &post.queued));
        let own = all.filter(|new| new.by == Submitter::Account(account));
        let recipients = own.map(|new| new.envelope.recipients.len()).sum::<usize>();
        let Submission { brake, since, .. } = &*self.office.submission;
        match brake.count(account, u32::try_from(recipients).unwrap_or(u32::MAX), since.elapsed().as_secs()) {
            Pace::Free => Ok(false),
            Pace::Held => {
                tracing::warn!(
                    id = %incoming.id, from = %incoming.envelope.from, recipients,
                    "an account sends too much: its mail is held until `pillarbox queue release`; has somebody \
                     found its password?"
                );
                Ok(true)
            }
            Pace::Refused => {
                let reply = Reply::new(452, "4.7.1", "too many recipients for now: ask the postmaster");
                incoming.log_refusal(&reply);
                Err(reply)
            }
        }
    }

    /// Ends the copies for lists. Mail that looks like spam goes to none; `alone` says that it goes nowhere
    /// else.
    async fn finish_posts(
        &self,
        incoming: &mut Incoming,
        require_tls: bool,
        alone: bool,
    ) -> Result<Vec<Parcel>, Reply> {
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
        let (by, exit, at) = (self.by, self.office.exit.clone(), now());
        let working = tokio::task::spawn_blocking(move || {
            let reader = exit.store.reader().map_err(|error| unreadable(&error))?;
            let mut parcels = Vec::new();
            for post in posts {
                let ready = post.finish(&reader, by, Due::from(at), require_tls)?;
                match notify::full(&exit, &ready, require_tls, &notify::Fresh { id: new_id(), now: at }) {
                    Ok(told) => parcels.extend(told),
                    Err(error) => tracing::warn!(%error, "a list's owners were not told of full mailboxes"),
                }
                parcels.push(ready.parcel());
            }
            Ok::<_, Reply>(parcels)
        });
        working.await.map_err(|_| lost())?.inspect_err(|reply| incoming.log_refusal(reply))
    }

    /// What tells the sender who has the message, if that was asked for.
    async fn confirmation(
        &self,
        message: NewMessage,
        envelope: &Envelope,
        require_tls: bool,
    ) -> Result<(NewMessage, Option<Parcel>), LetterError> {
        if self.local.is_empty() {
            return Ok((message, None));
        }
        let (exit, envelope, local) = (self.office.exit.clone(), envelope.clone(), self.local.clone());
        let fresh = notify::Fresh { id: new_id(), now: now() };
        let working = tokio::task::spawn_blocking(move || {
            let told = notify::delivered(&exit, &envelope, &local, require_tls, &message, &fresh);
            (message, told)
        });
        let (message, told) = working.await.map_err(|_| LetterError::Spool(WriteError::Closed))?;
        let told = told.inspect_err(|error| tracing::warn!(%error, "the sender is not told that a message arrived"));
        Ok((message, told.unwrap_or(None)))
    }

    async fn keep(
        &self,
        letter: Box<Letter>,
        accounts: &[AccountId],
        further: Further,
        incoming: &Incoming,
    ) -> Result<(), LetterError> {
        let results = incoming.looked.as_ref().filter(|_| incoming.restated).map(|looked| looked.field.clone());
        let message: NewMessage = if letter.is_on_disk() || results.is_some() {
            let spool = results.is_some().then(|| self.office.store.spool()).transpose().map_err(LetterError::Spool)?;
            let working = tokio::task::spawn_blocking(move || match (results, spool) {
                (Some(results), Some(spool)) => letter.finish_with(&results, spool),
                _ => letter.finish(),
            });
            working.await.map_err(|_| LetterError::Spool(WriteError::Closed))??
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
        let Further { queued, held, posts, require_tls } = further;
        let parcels = if aside {
            // What was put aside goes nowhere else, and confirms nothing.
            vec![Parcel { message, local: to, queued: Vec::new(), held }]
        } else {
            // Nor does mail that looks like spam, to whoever sent it.
            let is_sure = !to.is_empty() && !accounts.iter().any(|account| incoming.is_junk(*account));
            let (message, told) = if is_sure {
                self.confirmation(message, &incoming.envelope, require_tls).await?
            } else {
                (message, None)
            };
            let posts = posts.into_iter().map(|post| Parcel { held, ..post });
            [Parcel { message, local: to, queued, held }].into_iter().chain(posts).chain(told).collect()
        };
        let kept = self.office.store.submit_all(parcels).await;
        if let (true, Err(error)) = (aside, &kept) {
            tracing::error!(
                ?error,
                "mail that is to be put aside is refused until it can be: make room in the mailbox Quarantine, or raise \
                 the quota of its account"
            );
        }
        kept.map_err(LetterError::Spool)?;
        if let Some(guard) = &self.office.guard {
            guard.tell(told).await;
        }
        Ok(())
    }
}
