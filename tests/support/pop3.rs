//! How POP3 transcripts open a connection: a session with the answers the daemon gives it.

use std::sync::Arc;

use pillarbox::daemon::login::Doorway;
use pillarbox::daemon::serve_pop3::Pop3Answers;
use pillarbox::flow::access::lockout::LoginConfig;
use pillarbox::flow::access::pop3::Locks;
use pillarbox::protocol::pop3::{Pop3Config, Session};

use super::script::Script;
use super::wire::{Straight, Wire};
use super::world::World;
use super::{Pace, Stage};

/// Plays POP3. The setting that allows login in clear on loopback is on.
#[derive(Default)]
pub struct Pop3Stage {
    locks: Locks,
}

impl Stage for Pop3Stage {
    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String> {
        let config: Pop3Config = toml::from_str(&script.settings).map_err(|error| error.to_string())?;
        let client = script.client.unwrap_or_else(|| [192, 0, 2, 1].into());
        let doors = LoginConfig { delay_max_secs: 0, ..LoginConfig::default() };
        let doorway = Doorway::new(world.store.clone(), doors).map_err(|error| format!("{error:?}"))?;
        let session = Session::new(Arc::new(config), "pillarbox.test", client.is_loopback());
        let answers = Pop3Answers::new(world.store.clone(), self.locks.clone(), &doorway, client);
        Ok(Box::new(Straight::new(session, answers, world.runtime.clone(), pace, script.tls)))
    }
}
