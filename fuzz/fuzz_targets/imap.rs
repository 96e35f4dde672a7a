//! A client's bytes into IMAP commands: cut anywhere they come to the same, nothing panics, and
//! nothing is held that has no bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::protocol::imap::command::Command;
use pillarbox::protocol::imap::intake::{Intake, Taken};

/// What an intake makes of `bytes` in pieces of `size`; the message of an APPEND goes past it.
fn run(bytes: &[u8], size: usize, utf8: bool) -> Vec<String> {
    let mut intake = Intake::default();
    intake.set_utf8(utf8);
    let mut events = Vec::new();
    let mut message = 0_u64;
    for piece in bytes.chunks(size) {
        let mut rest = piece;
        while !rest.is_empty() {
            if message > 0 {
                let taken = rest.len().min(usize::try_from(message).unwrap_or(usize::MAX));
                message -= taken as u64;
                rest = &rest[taken..];
                if message == 0 {
                    intake.after_literal();
                }
                continue;
            }
            let (taken, outcome) = intake.take(rest);
            assert!(taken > 0, "nothing was taken of {} bytes", rest.len());
            rest = &rest[taken..];
            match outcome {
                Taken::More => continue,
                Taken::Command(ref tagged) => {
                    if let Command::Append(head) | Command::Replace { head, .. } = &tagged.command {
                        message = head.message.size;
                        if message == 0 {
                            intake.after_literal();
                        }
                    }
                }
                Taken::Refused { fatal: true, .. } => {
                    events.push(format!("{outcome:?}"));
                    return events;
                }
                _ => {}
            }
            events.push(format!("{outcome:?}"));
        }
    }
    events
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let utf8 = choice & 128 != 0;
    let size = usize::from(choice & 127) + 1;
    assert_eq!(run(bytes, size, utf8), run(bytes, usize::MAX, utf8));
});
