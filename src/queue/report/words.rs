//! What an answer means, in words for somebody who writes letters and runs no servers.

use crate::mail::queue::Answer;

use super::{enhanced, is_for_now};

/// One or two sentences about why it was not delivered (yet), and what to do about it.
pub(super) fn meaning(answer: Option<&Answer>, is_final: bool) -> &'static str {
    let Some(answer) = answer else {
        return "Nobody has tried yet.";
    };
    let code = enhanced(answer.text()).unwrap_or_default();
    let about = code.split_once('.').map_or("", |(_, about)| about);
    if is_final && is_for_now(answer) {
        return match about {
            "2.2" => "The mailbox was full all the time. Ask the recipient to make room.",
            "4.1" | "4.2" | "4.3" | "4.4" => {
                "Its server could not be reached in all that time. Check what stands\r\n    after the @, or write another way."
            }
            _ => "Its server said \"later\" again and again, until the time was over.",
        };
    }
    match about {
        "1.1" | "1.6" => "There is no such mailbox. Check how the address is spelled.",
        "1.2" | "1.0" if answer.from().is_empty() => "There is no such mail domain. Check what stands after the @.",
        "1.2" | "1.3" => "The address is wrong. Check how it is spelled.",
        "1.8" | "1.7" => "The server does not take mail from your address.",
        "1.10" => "This domain takes no mail at all.",
        "2.1" => "The mailbox is not in use.",
        "2.2" => "The mailbox is full.",
        "2.3" | "3.4" => "The message is too big for that server. Send less at one time, or a link.",
        "4.1" | "4.2" | "4.4" if is_final => "There is no way to its server.",
        "4.1" | "4.2" => "Its server cannot be reached at present.",
        "4.3" | "4.4" => "Where its server is cannot be found out at present.",
        "4.6" => "The message would go in a circle: the domain's mail servers are set up\r\n    wrongly.",
        "6.3" | "6.1" => "The server does not understand the form of this message.",
        "6.7" | "6.8" | "6.9" => {
            "The server takes no addresses and subjects with letters beyond ASCII.\r\n    Write to an address without them, and without such letters in the header."
        }
        "7.1" | "7.0" if is_final => {
            "The server refuses the message by its own rules. The recipient or whoever\r\n    runs that server can tell more."
        }
        "7.10" | "7.4" | "7.5" | "7.30" => "The connection would not be as secure as was asked for.",
        "7.20" | "7.21" | "7.22" | "7.23" | "7.24" | "7.25" | "7.26" => {
            "The server does not believe that this mail comes from your domain."
        }
        _ if is_final => "The server refuses the message.",
        _ => "The server said that it should be tried later.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: &str, text: &str, is_final: bool) -> &'static str {
        meaning(Some(&Answer::new(from, text)), is_final)
    }

    #[test]
    fn a_code_is_told_in_words() {
        assert!(of("mx", "550 5.1.1 unknown", true).starts_with("There is no such mailbox."));
        assert!(of("", "5.1.2 there is no such domain", true).contains("after the @"));
        assert!(of("mx", "452 4.2.2 full", false).contains("full"));
        assert!(of("mx", "452 4.2.2 full", true).contains("all the time"));
        assert!(of("", "4.4.1 no connection", true).contains("could not be reached in all that time"));
        assert_eq!(of("mx", "550 go away", true), "The server refuses the message.");
        assert_eq!(of("mx", "450 hm", false), "The server said that it should be tried later.");
    }
}
