//! Plays the POP3 transcripts of `tests/session/pop3` straight into the session.

mod support;

#[test]
fn pop3_speaks_as_its_transcripts_say() {
    support::play_folder("pop3", &support::pop3::Pop3Stage::default());
}
