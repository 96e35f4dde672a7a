//! Judging mail as it comes, and learning what its readers say of it.
//!
//! One model for the box and one for each account that has taught it something lie in the store
//! (table LEARNED). The box's comes into memory with the first message, those of the accounts that
//! had mail last beside it. What was learnt counts at once and is saved together, an hour after the
//! first of it at most and when the server stops: a save costs no sync, and a cut takes at most what
//! was not saved.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::filter::sender::Standing;
use crate::filter::spam::{
    Class, Features, Judgement, Judges, Known, Model, Reason, SEED_FILE_MAX, Seed, Size, Taught,
};
use crate::mail::address::Address;
use crate::mail::mailbox::AccountId;
use crate::store::{LEARNED_PIECES_MAX, ReadError, Store, WriteError};

/// Accounts whose models are in memory at one time: some 130 KiB each.
const OWN_MAX: usize = 4;

/// The piece with an account's correspondents: behind all that a model can have.
const KNOWN_PIECE: u16 = LEARNED_PIECES_MAX - 1;

/// The file in the data folder with a newer seed than the one that ships.
pub const SEED_FILE: &str = "spam-seed.bin";

/// Bytes of a line of our fields (RFC 5322 section 2.1.1), as far as reasons can be parted.
const LINE_BYTES: usize = 78;

/// Bytes in an encoded word, which has at most 75 characters (RFC 2047 section 2).
const ENCODED_MAX: usize = 45;

/// The spam filter's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SpamConfig {
    /// Mail from other servers is judged. Default: true.
    pub enabled: bool,
    /// The probability from which a message is put into Junk, between 0 and 1. Default: 0.93.
    pub junk: f32,
    /// The probability from which it is refused, between 0 and 1. Default: none, nothing is refused.
    pub reject: Option<f32>,
    /// Mail that was read and left where it is counts as wanted, until it is moved to Junk. Default:
    /// true.
    pub learn_from_reading: bool,
}

impl Default for SpamConfig {
    fn default() -> Self {
        Self { enabled: true, junk: 0.93, reject: None, learn_from_reading: true }
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It goes to INBOX.
    Accept,
    /// It goes to Junk.
    Junk,
    /// It is refused.
    Reject,
}

impl SpamConfig {
    /// What becomes of a message with this judgement.
    #[must_use]
    pub fn fate(&self, judgement: &Judgement) -> Fate {
        let probability = judgement.probability();
        match self.reject {
            Some(reject) if probability >= reject => Fate::Reject,
            _ if probability >= self.junk => Fate::Junk,
            _ => Fate::Accept,
        }
    }
}

/// What was found about a message on its way in.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The fields that say so, with their CRLFs, for the message's header. Where it goes to several
    /// accounts they say what the box thinks.
    pub fields: String,
    /// What becomes of it, for each account.
    pub fates: Vec<(AccountId, Fate)>,
    /// What would become of it after what the fields say.
    pub told: Fate,
}

impl Verdict {
    /// Tells whether no account would have it.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        !self.fates.is_empty() && self.fates.iter().all(|(_, fate)| *fate == Fate::Reject)
    }

    /// What becomes of it for an account. What others refuse is junk here: there is one answer to
    /// the sender.
    #[must_use]
    pub fn is_junk(&self, account: AccountId) -> bool {
        self.fates.iter().any(|(one, fate)| *one == account && *fate != Fate::Accept)
    }
}

/// A judgement told to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Opinion {
    /// The score in logits: above zero is spam.
    pub score: f32,
    /// The probability that it is spam.
    pub probability: f32,
    /// What would become of it.
    pub fate: Fate,
    /// As what it was taught, by this account or to this box.
    pub taught: Option<Class>,
    /// The parts of the score, and its strongest reasons.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// How much was learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct SpamFigures {
    /// Messages taught as wanted, less those taken back.
    pub ham: u32,
    /// Messages taught as spam, less those taken back.
    pub spam: u32,
    /// Bytes of the models in memory.
    pub memory_bytes: u64,
}

/// The spam filter of the box.
#[derive(Clone, Debug)]
pub struct Filter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    config: SpamConfig,
    /// The data folder, where a newer seed may lie.
    folder: Option<PathBuf>,
    models: Mutex<Models>,
}

/// The models in memory.
#[derive(Debug, Default)]
struct Models {
    general: Option<Model>,
    /// What Pillarbox came with, read with the box's model.
    seed: Option<Seed>,
    /// Of accounts, the one used last at the end.
    own: Vec<(AccountId, Own)>,
}

/// What an account has of its own.
#[derive(Debug)]
struct Own {
    /// None until it has learnt something: most accounts never do.
    model: Option<Model>,
    known: Known,
    known_changed: bool,
}

impl Filter {
    /// The filter of a store. Nothing is read yet.
    #[must_use]
    pub fn new(store: Store, config: SpamConfig) -> Self {
        Self(Arc::new(Inner { store, config, folder: None, models: Mutex::default() }))
    }

    /// The filter of the store in a folder, whose seed it takes where there is one.
    #[must_use]
    pub fn in_folder(store: Store, config: SpamConfig, folder: &Path) -> Self {
        Self(Arc::new(Inner { store, config, folder: Some(folder.to_owned()), models: Mutex::default() }))
    }

    /// Takes the seed that now lies in the data folder, or else the one that ships. Blocks.
    pub fn reseed(&self) {
        let mut models = self.models();
        models.seed = self.seed();
    }

    fn seed(&self) -> Option<Seed> {
        let file = self.0.folder.as_ref().map(|folder| folder.join(SEED_FILE)).filter(|file| file.exists());
        let own = file.and_then(|file| {
            let seed = read_seed(&file);
            seed.inspect_err(|error| {
                tracing::warn!(file = %file.display(), %error, "the spam filter's seed is not used, but the one that ships");
            })
            .ok()
        });
        own.or_else(Seed::shipped)
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &SpamConfig {
        &self.0.config
    }

    /// Judges a message on its way in, of which `head` is the beginning; `standing` is what the facts about its
    /// sender mean. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read: then nothing is known of the message.
    pub fn judge(&self, head: &[u8], accounts: &[AccountId], standing: &Standing) -> Result<Verdict, ReadError> {
        let features = Features::of(head);
        // Whoever poses as somebody gets no credit for him.
        let sender = return_path(head).filter(|_| standing.credible);
        let shares = &standing.shares;
        let mut models = self.models();
        let mut fates = Vec::new();
        let mut told = None;
        for &account in accounts {
            let (judgement, reasons) = models.ask(
                self,
                Some(account),
                |judges| {
                    let judges = Judges { sender: shares, ..*judges };
                    let reasons = (accounts.len() == 1).then(|| judges.reasons(&features, head));
                    (judges.judge(&features), reasons)
                },
                sender.as_ref(),
            )?;
            fates.push((account, self.0.config.fate(&judgement)));
            told = reasons.map(|reasons| (judgement, reasons));
        }
        let (judgement, reasons) = if let Some(told) = told {
            told
        } else {
            let of = |judges: &Judges<'_>| {
                let judges = Judges { sender: shares, ..*judges };
                (judges.judge(&features), judges.reasons(&features, head))
            };
            models.ask(self, None, of, None)?
        };
        let told = self.0.config.fate(&judgement);
        Ok(Verdict { fields: self.fields(&judgement, &reasons), fates, told })
    }

    /// Says what is thought of a message, and why. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn opinion(&self, head: &[u8], account: Option<AccountId>) -> Result<Opinion, ReadError> {
        let features = Features::of(head);
        let mut models = self.models();
        models.ask(
            self,
            account,
            |judges| {
                let judgement = Judgement { reasons: judges.reasons(&features, head), ..judges.judge(&features) };
                let taught = judges.own.unwrap_or(judges.general).class_of(&features);
                Opinion {
                    score: judgement.logit(),
                    probability: judgement.probability(),
                    fate: self.0.config.fate(&judgement),
                    taught: taught.or(judges.general.class_of(&features)),
                    judgement,
                }
            },
            return_path(head).as_ref(),
        )
    }

    /// Learns a message as `class`, for the box and where one is named for the account, or with `None`
    /// takes back what was learnt of it. Blocks. What comes of it is the box's.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn teach(&self, head: &[u8], account: Option<AccountId>, class: Option<Class>) -> Result<Taught, ReadError> {
        self.teach_features(&Features::of(head), account, class)
    }

    /// As [`Filter::teach`], unless the message was taught before: then nothing is changed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn suggest(&self, head: &[u8], account: AccountId, class: Class) -> Result<(), ReadError> {
        let features = Features::of(head);
        let mut models = self.models();
        let known = models.ask(
            self,
            Some(account),
            |judges| judges.general.class_of(&features).or(judges.own.and_then(|own| own.class_of(&features))),
            None,
        )?;
        drop(models);
        if known.is_none() {
            self.teach_features(&features, Some(account), Some(class))?;
        }
        Ok(())
    }

    fn teach_features(
        &self,
        features: &Features,
        account: Option<AccountId>,
        class: Option<Class>,
    ) -> Result<Taught, ReadError> {
        let mut models = self.models();
        let taught = models.general(self)?.teach(features, class);
        if let Some(account) = account {
            models.own(self, account)?.model.get_or_insert_with(|| Model::new(Size::ACCOUNT)).teach(features, class);
        }
        Ok(taught)
    }

    /// Remembers whom an account has written to. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn wrote_to(&self, account: AccountId, addresses: &[Address]) -> Result<(), ReadError> {
        let mut models = self.models();
        let own = models.own(self, account)?;
        for address in addresses {
            own.known.add(address);
        }
        own.known_changed = true;
        Ok(())
    }

    /// Tells whether an account has written to an address. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_written_to(&self, account: AccountId, address: &Address) -> Result<bool, ReadError> {
        let models = self.models();
        if let Some((_, own)) = models.own.iter().find(|(one, _)| *one == account) {
            return Ok(own.known.has(address));
        }
        drop(models);
        Ok(load_known(&self.0.store, account)?.has(address))
    }

    /// Saves what was learnt since the last time; readers see it at once. Blocks.
    ///
    /// # Errors
    /// When the store does not take it; what was to be saved is saved the next time.
    pub fn save(&self) -> Result<(), WriteError> {
        let mut models = self.models();
        if let Some(model) = &mut models.general {
            save_model(&self.0.store, None, model)?;
        }
        models.own.iter_mut().try_for_each(|(account, own)| own.save(&self.0.store, *account))
    }

    /// Forgets all that was learnt, by this account or with `None` by the box and all accounts. It is
    /// on disk when this returns. Blocks.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn reset(&self, account: Option<AccountId>) -> Result<(), WriteError> {
        let mut models = self.models();
        let store = &self.0.store;
        let Some(account) = account else {
            let accounts = store.reader().and_then(|reader| reader.accounts());
            let accounts = accounts.map_err(|error| WriteError::Storage(error.to_string()))?;
            *models = Models::default();
            accounts.iter().try_for_each(|account| store.forget_learned(Some(account.id)).wait())?;
            return store.forget_learned(None).wait();
        };
        models.own.retain(|(one, _)| *one != account);
        store.forget_learned(Some(account)).wait()
    }

    /// How much was learnt; `None` as long as the models are not in memory.
    #[must_use]
    pub fn figures(&self) -> Option<SpamFigures> {
        let models = self.models();
        let own = models.own.iter().filter_map(|(_, own)| own.model.as_ref()).map(Model::bytes).sum::<usize>();
        let general = models.general.as_ref()?;
        Some(SpamFigures {
            ham: general.learnt(Class::Ham),
            spam: general.learnt(Class::Spam),
            memory_bytes: (general.bytes() + own) as u64,
        })
    }

    fn models(&self) -> MutexGuard<'_, Models> {
        self.0.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the header says of a message.
    fn fields(&self, judgement: &Judgement, reasons: &[Reason]) -> String {
        let word = if self.0.config.fate(judgement) == Fate::Accept { "No" } else { "Yes" };
        let mut fields = format!(
            "X-Spam-Status: {word}, probability={:.4}, junk-from={}\r\nX-Spam-Score: {:.3}\r\n",
            judgement.probability(),
            self.0.config.junk,
            judgement.logit(),
        );
        let parts = judgement.shares.iter().map(|share| (&share.what, share.logit));
        let parts = parts.chain(reasons.iter().map(|reason| (&reason.what, reason.logit)));
        let mut line = "X-Spam-Reasons:".to_owned();
        let mut separator = "";
        for (what, logit) in parts {
            let reason = format!("{} ({logit:+.2})", printable(what));
            line.push_str(separator);
            separator = ";";
            if line.len() + reason.len() + 2 > LINE_BYTES && !line.trim_start().is_empty() {
                fields.push_str(&line);
                fields.push_str("\r\n");
                line.clear();
            }
            // Writing to a String cannot fail.
            let _ = write!(line, " {reason}");
        }
        fields.push_str(&line);
        fields.push_str("\r\n");
        fields
    }
}

impl Models {
    /// The box's model.
    fn general(&mut self, filter: &Filter) -> Result<&mut Model, ReadError> {
        let model = match self.general.take() {
            Some(model) => model,
            None => self.begin(filter)?,
        };
        Ok(self.general.insert(model))
    }

    /// Reads what all judging needs.
    fn begin(&mut self, filter: &Filter) -> Result<Model, ReadError> {
        self.seed = filter.seed();
        Ok(load_model(&filter.0.store, None, Size::BOX)?.unwrap_or_else(|| Model::new(Size::BOX)))
    }

    /// What an account has; of too many the one not used for the longest time is saved and goes.
    fn own(&mut self, filter: &Filter, account: AccountId) -> Result<&mut Own, ReadError> {
        let place = self.own.iter().position(|(one, _)| *one == account);
        let own = match place {
            Some(place) => self.own.remove(place).1,
            None => Own::load(&filter.0.store, account)?,
        };
        if self.own.len() >= OWN_MAX {
            let (account, mut own) = self.own.remove(0);
            if let Err(error) = own.save(&filter.0.store, account) {
                tracing::warn!(%error, "what an account taught the spam filter was not saved");
            }
        }
        self.own.push((account, own));
        self.own.last_mut().map(|(_, own)| own).ok_or(ReadError::Closed)
    }

    /// Asks the models that count for an account, or the box's alone.
    fn ask<T>(
        &mut self,
        filter: &Filter,
        account: Option<AccountId>,
        question: impl FnOnce(&Judges<'_>) -> T,
        sender: Option<&Address>,
    ) -> Result<T, ReadError> {
        self.general(filter)?;
        if let Some(account) = account {
            self.own(filter, account)?;
        }
        let own = account.and_then(|account| self.own.iter().find(|(one, _)| *one == account)).map(|(_, own)| own);
        let general = self.general.as_ref().ok_or(ReadError::Closed)?;
        let known = own.zip(sender).is_some_and(|(own, sender)| own.known.has(sender));
        let seed = self.seed.as_ref();
        Ok(question(&Judges { seed, general, own: own.and_then(|own| own.model.as_ref()), known, sender: &[] }))
    }
}

/// Whom an account has written to.
fn load_known(store: &Store, account: AccountId) -> Result<Known, ReadError> {
    let known = store.reader()?.learned(Some(account), KNOWN_PIECE)?;
    // What is damaged or of another form begins anew.
    Ok(known.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default())
}

impl Own {
    fn load(store: &Store, account: AccountId) -> Result<Self, ReadError> {
        let known = load_known(store, account)?;
        Ok(Self { model: load_model(store, Some(account), Size::ACCOUNT)?, known, known_changed: false })
    }

    fn save(&mut self, store: &Store, account: AccountId) -> Result<(), WriteError> {
        if self.known_changed {
            let bytes = postcard::to_allocvec(&self.known).unwrap_or_default();
            save_pieces(store, Some(account), vec![(KNOWN_PIECE, bytes)])?;
            self.known_changed = false;
        }
        self.model.as_mut().map_or(Ok(()), |model| save_model(store, Some(account), model))
    }
}

/// Reads a seed.
///
/// # Errors
/// One sentence.
pub fn read_seed(file: &Path) -> Result<Seed, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(SEED_FILE_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    Seed::read(&bytes).map_err(|error| error.to_string())
}

/// Reads a model; `None` where nothing was learnt, or what was is of another form or damaged.
fn load_model(store: &Store, learner: Option<AccountId>, size: Size) -> Result<Option<Model>, ReadError> {
    let reader = store.reader()?;
    let mut model = Model::new(size);
    for number in 0..model.pieces() {
        let loaded = match reader.learned(learner, number) {
            Ok(Some(bytes)) => model.load(number, &bytes).is_ok(),
            Ok(None) if number == 0 => return Ok(None),
            Ok(None) => true,
            Err(ReadError::Closed) => return Err(ReadError::Closed),
            Err(_) => false,
        };
        if !loaded {
            tracing::warn!(?learner, "what the spam filter has learnt cannot be read: it begins anew");
            return Ok(Some(Model::instead(size)));
        }
    }
    Ok(Some(model))
}

fn save_model(store: &Store, learner: Option<AccountId>, model: &mut Model) -> Result<(), WriteError> {
    let pieces = model.take_changed();
    if pieces.is_empty() {
        return Ok(());
    }
    save_pieces(store, learner, pieces).inspect_err(|_| model.save_all())
}

fn save_pieces(store: &Store, learner: Option<AccountId>, pieces: Vec<(u16, Vec<u8>)>) -> Result<(), WriteError> {
    match store.save_learned(learner, pieces).wait() {
        // An account that went meanwhile has nothing to save.
        Err(WriteError::NoSuchAccount) => Ok(()),
        saved => saved,
    }
}

/// Who sent a message, as our Return-Path field at its beginning says.
fn return_path(head: &[u8]) -> Option<Address> {
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(head.get(..end)?).ok()?.trim_end();
    let path = line.strip_prefix("Return-Path: <")?.strip_suffix('>')?;
    Address::parse(path).ok()
}

/// A reason as a header field can hold it: what is not ASCII becomes an encoded word (RFC 2047
/// section 2), cut to what one can have.
fn printable(text: &str) -> String {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
    let end = text.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|end| *end <= ENCODED_MAX);
    let text = text.get(..end.last().unwrap_or(0)).unwrap_or_default();
    format!("=?utf-8?B?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::secret::{ScramVerifier, tests::password};
    use crate::store::{Quota, StoreConfig};

    const SPAM: &[u8] = b"Subject: cheap watches\r\n\r\nbuy replica watches at the best price\r\n";
    const HAM: &[u8] = b"Subject: minutes\r\n\r\nthe minutes of the meeting on thursday\r\n";

    fn filter(accounts: usize, config: SpamConfig) -> (tempfile::TempDir, Filter, Vec<AccountId>) {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &settings).unwrap();
        let add = |number: usize| {
            let address = Address::parse(&format!("user{number}@x.test")).unwrap();
            let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 2);
            store.add_account(address, verifier, Quota::default()).wait().unwrap()
        };
        let ids = (0..accounts).map(add).collect();
        (folder, Filter::new(store, config), ids)
    }

    fn again(filter: &Filter) -> Filter {
        Filter::new(filter.0.store.clone(), filter.0.config.clone())
    }

    #[test]
    fn each_account_judges_for_itself_and_the_fields_tell_what_the_box_thinks() {
        let (_folder, filter, ids) = filter(2, SpamConfig::default());
        for number in 0..50 {
            let more = |letter: &[u8]| [letter, format!("number {number}\r\n").as_bytes()].concat();
            filter.teach(&more(SPAM), Some(ids[0]), Some(Class::Spam)).unwrap();
            filter.teach(&more(HAM), Some(ids[0]), Some(Class::Ham)).unwrap();
        }
        // The second one wants it, and has said so.
        for number in 0..20 {
            let features = Features::of(&[SPAM, format!("for me {number}\r\n").as_bytes()].concat());
            let mut models = filter.models();
            let own = models.own(&filter, ids[1]).unwrap();
            own.model.get_or_insert_with(|| Model::new(Size::ACCOUNT)).teach(&features, Some(Class::Ham));
        }
        let thinks = |account| filter.opinion(SPAM, account).unwrap().score;
        assert!(thinks(Some(ids[1])) < thinks(Some(ids[0])) - 0.5 && thinks(Some(ids[1])) < thinks(None) - 0.5);
        let verdict = filter.judge(SPAM, &ids, &Standing::unchecked()).unwrap();
        assert!(verdict.fields.starts_with("X-Spam-Status: Yes, probability="), "{}", verdict.fields);
        assert!(!verdict.fields.contains("this account"), "{}", verdict.fields);
        assert!(
            filter
                .judge(SPAM, &ids[1..], &Standing::unchecked())
                .unwrap()
                .fields
                .contains("what this account has learnt")
        );
    }

    #[test]
    fn what_one_refuses_and_another_does_not_is_junk_for_the_first() {
        let (_folder, filter, ids) = filter(2, SpamConfig { reject: Some(0.0), ..SpamConfig::default() });
        let verdict = filter.judge(HAM, &ids, &Standing::unchecked()).unwrap();
        assert!(verdict.is_rejected());
        let mixed = Verdict { fates: vec![(ids[0], Fate::Reject), (ids[1], Fate::Accept)], ..verdict };
        assert!(!mixed.is_rejected() && mixed.is_junk(ids[0]) && !mixed.is_junk(ids[1]));
    }

    #[test]
    fn accounts_that_leave_memory_come_back_as_they_were() {
        let (_folder, filter, ids) = filter(OWN_MAX + 2, SpamConfig::default());
        for &id in &ids {
            filter.teach(SPAM, Some(id), Some(Class::Spam)).unwrap();
            filter.wrote_to(id, &[Address::parse("friend@y.test").unwrap()]).unwrap();
        }
        assert_eq!(filter.models().own.len(), OWN_MAX);
        let letter = [b"Return-Path: <friend@y.test>\r\n", SPAM].concat();
        let opinion = filter.opinion(&letter, Some(ids[0])).unwrap();
        assert_eq!((opinion.judgement.shares.len(), opinion.taught), (4, Some(Class::Spam)));
        filter.save().unwrap();
        assert_eq!(again(&filter).opinion(&letter, Some(ids[0])).unwrap(), opinion);
    }

    #[test]
    fn a_damaged_model_begins_anew_and_mail_goes_on() {
        let (_folder, filter, ids) = filter(1, SpamConfig::default());
        let untaught = filter.opinion(SPAM, None).unwrap();
        filter.teach(SPAM, Some(ids[0]), Some(Class::Spam)).unwrap();
        filter.save().unwrap();
        filter.0.store.save_learned(None, vec![(0, b"of another form".to_vec())]).wait().unwrap();
        filter.0.store.save_learned(Some(ids[0]), vec![(KNOWN_PIECE, vec![255; 9])]).wait().unwrap();
        let anew = again(&filter);
        assert_eq!(anew.opinion(SPAM, None).unwrap(), untaught);
        assert!(anew.judge(SPAM, &ids, &Standing::unchecked()).is_ok());
        // And is saved over the old one, all of it.
        anew.teach(HAM, None, Some(Class::Ham)).unwrap();
        anew.save().unwrap();
        assert_eq!(again(&filter).figures(), None, "nothing is read before it is needed");
        assert_eq!(again(&filter).opinion(HAM, None).unwrap().taught, Some(Class::Ham));
        assert_eq!(again(&filter).opinion(SPAM, None).unwrap().taught, None);
    }

    #[test]
    fn to_forget_is_durable() {
        let (_folder, filter, ids) = filter(1, SpamConfig::default());
        let untaught = filter.opinion(SPAM, Some(ids[0])).unwrap();
        filter.teach(SPAM, Some(ids[0]), Some(Class::Spam)).unwrap();
        filter.save().unwrap();
        filter.reset(None).unwrap();
        assert_eq!(filter.opinion(SPAM, Some(ids[0])).unwrap(), untaught);
        assert_eq!(again(&filter).opinion(SPAM, Some(ids[0])).unwrap(), untaught);
    }

    #[test]
    fn fields_are_short_lines_of_ascii() {
        let (_folder, filter, ids) = filter(1, SpamConfig::default());
        let letter = "Subject: Grüße\r\n\r\nпривет мир, ein langes Wort wäre Donaudampfschifffahrtsgesellschaft\r\n";
        for number in 0..30 {
            filter.teach(format!("{letter}{number}").as_bytes(), None, Some(Class::Spam)).unwrap();
        }
        let fields = filter.judge(letter.as_bytes(), &ids, &Standing::unchecked()).unwrap().fields;
        assert!(fields.is_ascii() && fields.ends_with("\r\n") && fields.contains("=?utf-8?B?"), "{fields}");
        assert!(fields.lines().all(|line| line.len() < 200), "{fields}");
        assert!(fields.lines().all(|line| line.starts_with("X-Spam-") || line.starts_with(' ')));
    }
}
