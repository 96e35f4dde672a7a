//! What a login asks, answered from the store: the door that SMTP, IMAP and POP3 share.
//!
//! A certificate that a client presents lets in whom it was registered for, as long as it is, whatever
//! the handshake was: TLS tells that the client has its key, and the store all else.
//!
//! A wrong password and an unknown user look alike: both cost one PBKDF2, both fail with the same
//! word, and an unknown user has SCRAM keys that are made up from a secret of the store, so they
//! stay the same.
//!
//! PBKDF2 costs 25 to 50 ms on a small board and mail clients log in again and again, so the door
//! remembers the last [`PROVED_MAX`] passwords it has seen proved: an HMAC, under a key that lives
//! and dies with the process, of login, password and verifier. The next login with the same words
//! costs microseconds; after a change of password the verifier is another and nothing matches.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;

use super::lockout::{Admission, Lockout, LoginConfig};
use crate::mail::address::Address;
use crate::mail::certificate::Fingerprint;
use crate::mail::date::Timestamp;
use crate::mail::secret::{ITERATIONS_DEFAULT, Password, ScramVerifier};
use crate::protocol::sasl::{Answer, Identity, Refusal};
use crate::store::{ReadError, Store, WriteError};

/// Proved passwords that are remembered; 32 bytes each.
pub const PROVED_MAX: usize = 64;

/// Random bytes a door needs when it is set up.
pub const DOOR_RANDOM: usize = 64;

/// The note that keeps the secret from which the keys of unknown users are made.
const SECRET_NOTE: &str = "login-secret";

/// What all connections share to let people in.
pub struct Door {
    store: Store,
    /// Makes up the keys of users who do not exist.
    secret: [u8; 32],
    /// Names proved passwords; new with each start.
    proved_key: hmac::Key,
    /// The newest last.
    proved: Mutex<VecDeque<[u8; 32]>>,
    lockout: Mutex<Lockout>,
}

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Door(hidden)")
    }
}

/// Why the door could not be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorError {
    /// The secret could not be read.
    Read(ReadError),
    /// The secret could not be kept.
    Write(WriteError),
}

impl fmt::Display for DoorError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(out),
            Self::Write(error) => error.fmt(out),
        }
    }
}

impl Door {
    /// Sets the door up; keeps a new secret in a store that has none. May block.
    ///
    /// # Errors
    /// As the store.
    pub fn new(store: Store, config: LoginConfig, random: &[u8; DOOR_RANDOM]) -> Result<Self, DoorError> {
        let (fresh, proved_key) = random.split_at(32);
        let kept = store.reader().and_then(|reader| reader.note(SECRET_NOTE)).map_err(DoorError::Read)?;
        let secret = if let Some(secret) = kept.and_then(|kept| <[u8; 32]>::try_from(kept).ok()) {
            secret
        } else {
            store.put_note(SECRET_NOTE, fresh.to_vec()).wait().map_err(DoorError::Write)?;
            fresh.try_into().unwrap_or_default()
        };
        Ok(Self {
            store,
            secret,
            proved_key: hmac::Key::new(hmac::HMAC_SHA256, proved_key),
            proved: Mutex::new(VecDeque::new()),
            lockout: Mutex::new(Lockout::new(config)),
        })
    }

    /// Says whether `client` may try to log in as `login` now.
    pub fn admit(&self, client: IpAddr, login: &str, now: Instant) -> Admission {
        held(&self.lockout).admit(client, login, now)
    }

    /// Lets somebody in whose password was proved a moment ago; `None` means that it must be
    /// checked. A point read and an HMAC.
    pub fn recognize(&self, client: IpAddr, login: &str, password: &Password, now: Instant) -> Option<Identity> {
        let (account, verifier) = self.store.reader().ok()?.login(login).ok()??;
        let name = self.name_of(login, password, &verifier);
        let known = held(&self.proved).contains(&name);
        (known && held(&self.lockout).locked(client, now).is_none())
            .then_some(Identity { account: account.id, address: account.address })
    }

    /// Checks a password: one PBKDF2 whether the user exists or not. May block.
    ///
    /// # Errors
    /// [`Refusal::Credentials`], [`Refusal::LockedOut`] or [`Refusal::Unavailable`].
    pub fn check(&self, client: IpAddr, login: &str, password: &Password, now: Instant) -> Result<Identity, Refusal> {
        // Others may have failed from there while this one waited.
        self.refuse_locked(client, now)?;
        let found = self.store.reader().and_then(|reader| reader.login(login)).map_err(|error| unavailable(&error))?;
        let keys = self.keys(login, found.as_ref().map(|(_, verifier)| verifier));
        // Also for a user who does not exist: the time must not tell.
        let matches = keys.matches(password);
        if let Some((account, _)) = found.filter(|_| matches) {
            self.remember(self.name_of(login, password, &keys));
            held(&self.lockout).succeeded(login);
            Ok(Identity { account: account.id, address: account.address })
        } else {
            held(&self.lockout).failed(client, login, Some(password.reveal()), now);
            Err(Refusal::Credentials)
        }
    }

    /// The SCRAM keys of a user, made up for an unknown one, with the server's `nonce`.
    pub fn verifier(&self, client: IpAddr, login: &str, nonce: [u8; 18], now: Instant) -> Answer {
        if let Err(refusal) = self.refuse_locked(client, now) {
            return Answer::Login(Err(refusal));
        }
        match self.store.reader().and_then(|reader| reader.login(login)) {
            Ok(found) => Answer::Verifier { verifier: self.keys(login, found.as_ref().map(|(_, keys)| keys)), nonce },
            Err(error) => Answer::Login(Err(unavailable(&error))),
        }
    }

    /// Takes note of how a SCRAM exchange ended.
    ///
    /// # Errors
    /// As [`Door::check`].
    pub fn conclude(&self, client: IpAddr, login: &str, proved: bool, now: Instant) -> Result<Identity, Refusal> {
        // Guesses begun side by side before the lockout do not get around it.
        self.refuse_locked(client, now)?;
        if !proved {
            held(&self.lockout).failed(client, login, None, now);
            return Err(Refusal::Credentials);
        }
        let found = self.store.reader().and_then(|reader| reader.login(login)).map_err(|error| unavailable(&error))?;
        let (account, _) = found.ok_or(Refusal::Credentials)?;
        held(&self.lockout).succeeded(login);
        Ok(Identity { account: account.id, address: account.address })
    }

    /// Tells whether this certificate lets anybody in at `time`. A point read.
    pub fn knows(&self, certificate: Fingerprint, time: Timestamp) -> bool {
        let known = self.store.reader().and_then(|reader| reader.certificate(certificate));
        known.is_ok_and(|known| known.is_some_and(|known| !known.is_over(time)))
    }

    /// Lets in whom a certificate was registered for, if its time is not over at `time` and `acts_as` is
    /// nobody else: none, the account's login or an address that it may send as. A few point reads.
    ///
    /// # Errors
    /// As [`Door::check`].
    pub fn present(
        &self,
        client: IpAddr,
        certificate: Fingerprint,
        acts_as: Option<&str>,
        time: Timestamp,
        now: Instant,
    ) -> Result<Identity, Refusal> {
        self.refuse_locked(client, now)?;
        let found = self.owner(certificate, acts_as, time).map_err(|error| unavailable(&error))?;
        let Some(identity) = found else {
            // A program that shows the same again teaches nobody anything.
            let shown = certificate.to_string();
            held(&self.lockout).failed(client, acts_as.unwrap_or(&shown), Some(&shown), now);
            return Err(Refusal::Credentials);
        };
        held(&self.lockout).succeeded(&identity.address.to_string());
        Ok(identity)
    }

    /// Whom a certificate lets in as who he wants to be.
    fn owner(
        &self,
        certificate: Fingerprint,
        acts_as: Option<&str>,
        time: Timestamp,
    ) -> Result<Option<Identity>, ReadError> {
        let reader = self.store.reader()?;
        let Some(known) = reader.certificate(certificate)?.filter(|known| !known.is_over(time)) else {
            return Ok(None);
        };
        let Some(account) = reader.account(known.account)? else { return Ok(None) };
        let his = match acts_as {
            None => true,
            Some(login) => match (reader.login(login)?, Address::parse(login)) {
                (Some((named, _)), _) => named.id == account.id,
                (None, Ok(address)) => reader.may_send_as(account.id, &address)?,
                (None, Err(_)) => false,
            },
        };
        Ok(his.then_some(Identity { account: account.id, address: account.address }))
    }

    /// The keys that were found, or made-up ones.
    fn keys(&self, login: &str, found: Option<&ScramVerifier>) -> ScramVerifier {
        found.cloned().unwrap_or_else(|| ScramVerifier::made_up(&self.secret, login, ITERATIONS_DEFAULT))
    }

    fn refuse_locked(&self, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        held(&self.lockout)
            .locked(client, now)
            .map_or(Ok(()), |left| Err(Refusal::LockedOut { retry: whole_secs(left) }))
    }

    /// The name under which a proved password is remembered.
    fn name_of(&self, login: &str, password: &Password, verifier: &ScramVerifier) -> [u8; 32] {
        let mut name = hmac::Context::with_key(&self.proved_key);
        for field in [login.as_bytes(), password.reveal().as_bytes(), &verifier.salt, &verifier.stored_key] {
            name.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            name.update(field);
        }
        name.sign().as_ref().try_into().unwrap_or_default()
    }

    fn remember(&self, name: [u8; 32]) {
        let mut proved = held(&self.proved);
        if proved.contains(&name) {
            return;
        }
        if proved.len() >= PROVED_MAX {
            proved.pop_front();
        }
        proved.push_back(name);
    }
}

/// Rounds up, so that "try again in 1 s" is never said too early.
pub(crate) fn whole_secs(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() != 0))
}

fn unavailable(error: &ReadError) -> Refusal {
    tracing::error!(?error, "the store could not be asked for a login");
    Refusal::Unavailable
}

/// A panic elsewhere while the table was held cannot leave it half changed.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::mailbox::AccountId;
    use crate::mail::secret::tests::password;
    use crate::store::{Quota, StoreConfig};

    struct House {
        _folder: tempfile::TempDir,
        store: Store,
        door: Door,
    }

    fn store_in(folder: &std::path::Path) -> Store {
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        Store::open(folder, &config).unwrap()
    }

    /// A store with the account `ann@x.test` and the password `pencil`.
    fn house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(folder.path());
        let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 16);
        store.add_account(Address::parse("ann@x.test").unwrap(), verifier, Quota::default()).wait().unwrap();
        let door = Door::new(store.clone(), LoginConfig::default(), &[7; DOOR_RANDOM]).unwrap();
        House { _folder: folder, store, door }
    }

    fn client() -> IpAddr {
        [192, 0, 2, 1].into()
    }

    #[test]
    fn a_password_is_checked_once_and_recognized_afterwards() {
        let House { door, store, .. } = &house();
        let now = Instant::now();
        assert!(door.recognize(client(), "ann@x.test", &password("pencil"), now).is_none());
        let identity = door.check(client(), "ann@x.test", &password("pencil"), now).unwrap();
        assert_eq!(identity.address.to_string(), "ann@x.test");
        assert_eq!(door.recognize(client(), "ann@x.test", &password("pencil"), now), Some(identity.clone()));
        assert!(door.recognize(client(), "ann@x.test", &password("pencils"), now).is_none());

        let changed = ScramVerifier::derive(&password("brush"), [1; 16], 16);
        store.set_verifier(identity.account, changed).wait().unwrap();
        assert!(door.recognize(client(), "ann@x.test", &password("pencil"), now).is_none(), "the password was changed");
        assert_eq!(door.check(client(), "ann@x.test", &password("pencil"), now), Err(Refusal::Credentials));
    }

    #[test]
    fn a_short_login_means_its_only_account() {
        let House { door, .. } = &house();
        let identity = door.check(client(), "Ann", &password("pencil"), Instant::now()).unwrap();
        assert_eq!(identity.address.to_string(), "ann@x.test");
    }

    #[test]
    fn an_unknown_user_has_keys_that_stay_the_same_over_a_restart() {
        let House { _folder: folder, store, door } = house();
        let keys = |door: &Door, login: &str| match door.verifier(client(), login, [0; 18], Instant::now()) {
            Answer::Verifier { verifier, .. } => verifier,
            Answer::Login(refusal) => panic!("{refusal:?}"),
        };
        let before = keys(&door, "nobody@x.test");
        assert_ne!(before.salt, keys(&door, "noone@x.test").salt);
        assert_eq!(before.iterations, ITERATIONS_DEFAULT);
        drop(door);
        store.close().unwrap();
        drop(store);
        let store = store_in(folder.path());
        let door = Door::new(store, LoginConfig::default(), &[8; DOOR_RANDOM]).unwrap();
        assert_eq!(keys(&door, "nobody@x.test"), before);
    }

    #[test]
    fn wrong_proofs_and_passwords_lock_the_address_out_even_for_the_right_one() {
        let House { door, .. } = &house();
        let now = Instant::now();
        for number in 0..5 {
            let guess = password(&format!("guess {number}"));
            assert_eq!(door.check(client(), "ann@x.test", &guess, now), Err(Refusal::Credentials));
            assert_eq!(door.conclude(client(), "ann@x.test", false, now), Err(Refusal::Credentials));
        }
        let locked = Refusal::LockedOut { retry: Duration::from_mins(15) };
        assert_eq!(door.check(client(), "ann@x.test", &password("pencil"), now), Err(locked));
        assert_eq!(door.conclude(client(), "ann@x.test", true, now), Err(locked));
        assert!(
            matches!(door.verifier(client(), "ann@x.test", [0; 18], now), Answer::Login(Err(refusal)) if refusal == locked)
        );
        assert_eq!(door.admit(client(), "bob", now), Admission::Locked(Duration::from_mins(15)));
        assert!(door.check([192, 0, 2, 2].into(), "ann@x.test", &password("pencil"), now).is_ok());
    }

    #[test]
    fn a_recognized_password_does_not_open_a_locked_address() {
        let House { door, .. } = &house();
        let now = Instant::now();
        door.check(client(), "ann", &password("pencil"), now).unwrap();
        for _ in 0..10 {
            let _ = door.conclude(client(), "ann", false, now);
        }
        assert!(door.recognize(client(), "ann", &password("pencil"), now).is_none());
    }

    const SOON: Timestamp = Timestamp(1_000);
    const LATER: Timestamp = Timestamp(1_001);

    fn registered(store: &Store, account: AccountId, of: &[u8]) -> Fingerprint {
        let certificate = Fingerprint::of(of);
        let name = format!("certificate {certificate:?}").chars().take(40).collect();
        store.add_certificate(account, certificate, name, SOON).wait().unwrap();
        certificate
    }

    fn account(store: &Store, address: &str) -> AccountId {
        let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 16);
        store.add_account(Address::parse(address).unwrap(), verifier, Quota::default()).wait().unwrap()
    }

    #[test]
    fn a_certificate_lets_its_account_in_under_its_own_names_alone() {
        let House { door, store, .. } = &house();
        let ann = store.reader().unwrap().login("ann@x.test").unwrap().unwrap().0.id;
        account(store, "bob@x.test");
        for (alias, target) in [("info@x.test", "ann@x.test"), ("sales@x.test", "bob@x.test")] {
            let (address, target) = (Address::parse(alias).unwrap(), Address::parse(target).unwrap());
            store.put_alias(crate::store::Alias { address, targets: vec![target] }).wait().unwrap();
        }
        let certificate = registered(store, ann, b"ann's");
        // Different words each time, and never so many that the address is locked out.
        let present = |acts_as: Option<&str>| {
            let door = Door::new(store.clone(), LoginConfig::default(), &[7; DOOR_RANDOM]).unwrap();
            door.present(client(), certificate, acts_as, SOON, Instant::now()).map(|identity| identity.account)
        };
        for own in [None, Some("ann@x.test"), Some("ANN@X.TEST"), Some("ann"), Some("info@x.test")] {
            assert_eq!(present(own), Ok(ann), "{own:?}");
        }
        for other in ["bob@x.test", "bob", "sales@x.test", "nobody@x.test", "ann@elsewhere.test", "ann@", "*@x.test"] {
            assert_eq!(present(Some(other)), Err(Refusal::Credentials), "{other}");
        }
        let unknown = Fingerprint::of(b"not registered");
        assert!(door.knows(certificate, SOON) && !door.knows(unknown, SOON));
        assert_eq!(door.present(client(), unknown, None, SOON, Instant::now()), Err(Refusal::Credentials));
    }

    #[test]
    fn a_certificate_that_is_over_revoked_or_of_nobody_lets_nobody_in() {
        let House { door, store, .. } = &house();
        let now = Instant::now();
        let refused = |certificate, time| {
            !door.knows(certificate, time)
                && door.present(client(), certificate, None, time, now) == Err(Refusal::Credentials)
        };
        let ann = store.reader().unwrap().login("ann@x.test").unwrap().unwrap().0.id;
        let bob = account(store, "bob@x.test");
        let (anns, bobs) = (registered(store, ann, b"ann's"), registered(store, bob, b"bob's"));
        assert!(!refused(anns, SOON) && refused(anns, LATER));
        // A clock that was never set makes nothing expire.
        assert!(!refused(anns, Timestamp(0)));
        let name = store.reader().unwrap().certificate(anns).unwrap().unwrap().name;
        store.remove_certificate(ann, name).wait().unwrap();
        assert!(refused(anns, SOON));
        assert!(door.present(client(), bobs, None, SOON, now).is_ok());
        store.remove_account(bob).wait().unwrap();
        assert!(refused(bobs, SOON));
    }

    #[test]
    fn names_of_others_lock_an_address_out_and_the_same_try_again_does_not() {
        let House { door, store, .. } = &house();
        let now = Instant::now();
        let ann = store.reader().unwrap().login("ann@x.test").unwrap().unwrap().0.id;
        let certificate = registered(store, ann, b"ann's");
        for _ in 0..20 {
            assert_eq!(door.present(client(), Fingerprint::of(b"old"), None, SOON, now), Err(Refusal::Credentials));
        }
        assert!(door.present(client(), certificate, None, SOON, now).is_ok());
        // The old one counted once.
        for number in 0..9 {
            let other = format!("{number}@x.test");
            assert_eq!(door.present(client(), certificate, Some(&other), SOON, now), Err(Refusal::Credentials));
        }
        let locked = Err(Refusal::LockedOut { retry: Duration::from_mins(15) });
        assert_eq!(door.present(client(), certificate, None, SOON, now), locked);
        assert!(door.present([192, 0, 2, 2].into(), certificate, None, SOON, now).is_ok());
    }

    #[test]
    fn no_more_proved_passwords_are_remembered_than_the_bound() {
        let House { door, .. } = &house();
        for number in 0..=u8::MAX {
            door.remember([number; 32]);
            door.remember([number; 32]);
        }
        let proved = held(&door.proved);
        assert_eq!((proved.len(), proved.back()), (PROVED_MAX, Some(&[u8::MAX; 32])));
    }

    #[test]
    fn a_proof_of_somebody_who_is_gone_lets_nobody_in() {
        let House { door, .. } = &house();
        assert_eq!(door.conclude(client(), "nobody", true, Instant::now()), Err(Refusal::Credentials));
    }
}
