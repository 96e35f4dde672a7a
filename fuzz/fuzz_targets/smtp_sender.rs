//! Any bytes are a server: whatever it says, however it is cut, every recipient of every message that
//! was asked for has an outcome, and yes is only said where the server said it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::mail::address::Address;
use pillarbox::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReversePath};
use pillarbox::mail::secret::Password;
use pillarbox::protocol::smtp::sender::{
    Answer, Credentials, Mail, NONCE_BYTES, NatureReader, Outcome, Request, Sender, SenderSetup, TlsWish,
};
use pillarbox::protocol::{Session, Step, TlsFacts};

const MESSAGES: [(&[u8], usize); 3] = [(b"Subject: a\r\n\r\n.b\r\n", 2), (b"\xff\n\0", 1), (b"", 60)];

fn mail(text: &[u8], count: usize) -> Option<Mail> {
    let mut nature = NatureReader::default();
    nature.feed(text);
    let recipient = |number| {
        let address = Address::parse(&format!("r{number}@b")).ok()?;
        let path = ForwardPath::Address(address);
        Some(Recipient { path, notify: Notify { given: true, ..Notify::default() }, original: None })
    };
    let envelope = Envelope {
        from: ReversePath::Null,
        recipients: (0..count).map(recipient).collect::<Option<_>>()?,
        body: BodyType::EightBitMime,
        utf8: false,
        ret: None,
        envelope_id: None,
    };
    Some(Mail { envelope, size: text.len() as u64, nature: nature.finish(false), require_tls: false })
}

fuzz_target!(|input: &[u8]| {
    let (&setup, input) = input.split_first().unwrap_or((&0, &[]));
    let cut = usize::from(setup >> 2) + 1;
    let credentials = (setup & 1 > 0).then(|| Password::new("secret".to_owned())).flatten().map(|password| Credentials {
        login: "ann".to_owned(),
        password,
        in_clear: true,
        nonce: [7; NONCE_BYTES],
    });
    let tls = if setup & 2 > 0 { TlsWish::IfOffered } else { TlsWish::Never };
    let mut sender = Sender::new(SenderSetup { helo: "box.test".to_owned(), tls, credentials });
    let (mut rest, mut waiting) = (input, MESSAGES.iter());
    let mut current: Option<(&[u8], usize)> = None;
    loop {
        match sender.next() {
            Step::Write(_) => {}
            Step::Ask(Request::Mail) => {
                assert!(current.is_none(), "the message before was not done");
                current = waiting.next().copied();
                let next = current.and_then(|(text, count)| mail(text, count));
                sender.resume(Answer::Mail(next.map(Box::new)));
            }
            Step::Ask(Request::Body) => {
                let (text, count) = current.unwrap_or_default();
                let (piece, rest) = text.split_at(text.len().min(5));
                current = Some((rest, count));
                sender.resume(Answer::Body(piece.to_vec()));
            }
            Step::Ask(Request::Done(done)) => {
                assert_eq!(done.recipients.len(), current.take().map_or(0, |(_, count)| count));
                for outcome in &done.recipients {
                    let heard = outcome.heard();
                    assert!(heard.text.len() <= 512 && !heard.text.chars().any(char::is_control));
                    match outcome {
                        Outcome::Taken(_) => assert!((200..300).contains(&heard.code)),
                        Outcome::Refused(_) => assert!(heard.code >= 500),
                        Outcome::Deferred(_) => {}
                    }
                }
                sender.resume(Answer::Noted);
            }
            // Keys are not worth their time here: the login fails without them.
            Step::Ask(Request::Derive(derive)) => sender.resume(Answer::Derived(derive)),
            Step::Read => {
                let taken = sender.receive(rest.get(..cut).unwrap_or(rest));
                rest = &rest[taken..];
            }
            Step::StartTls => sender.tls_started(TlsFacts { description: "TLSv1.3".into(), ..TlsFacts::default() }),
            Step::Close => break,
        }
    }
    assert!(current.is_none(), "a message without an outcome");
});
