//! `pillarbox spam`: what the spam filter thinks of messages and why, and teaching it by hand.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use minisign_verify::{PublicKey, Signature};
use serde::Serialize;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, unexpected};
use super::{ask, show};
use crate::daemon::control::{Order, Outcome, SpamTask};
use crate::filter::spam::{Class, WINDOW_MAX};
use crate::flow::judge::{Fate, Opinion, SEED_FILE, read_seed};
use crate::net::authority::write_atomically;

/// Ask and teach the spam filter
#[derive(Clone, Debug, clap::Args)]
pub struct SpamArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// For the account with this address instead of the box alone
    #[arg(long, value_name = "ADDRESS", global = true)]
    account: Option<String>,
    #[command(subcommand)]
    command: SpamCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum SpamCommand {
    /// Teach it messages
    Train {
        #[command(flatten)]
        class: ClassArgs,
        /// Messages, a file each; folders of such files; `-` for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Take back what it was taught of messages
    Untrain {
        /// Messages, a file each; folders of such files; `-` for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Tell the probability that messages are spam, a line for each
    Score {
        /// Messages, a file each; folders of such files; `-` for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Tell what it thinks of messages, and why
    Explain {
        /// Messages, a file each; folders of such files; `-` for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Take a newer seed than the one that ships: what is known before anything was taught
    Seed(SeedArgs),
    /// Forget all it was taught: by everybody, or with --account by one
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// As what messages are taught.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ClassArgs {
    /// They are spam
    #[arg(long)]
    spam: bool,
    /// They are wanted
    #[arg(long)]
    ham: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct SeedArgs {
    /// The seed's file; its signature, made by minisign, lies beside it as FILE.minisig
    #[arg(required_unless_present = "shipped")]
    file: Option<PathBuf>,
    /// The key its maker signs with, as text or as a file
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Take it without a signature
    #[arg(long, conflicts_with = "key")]
    unsigned: bool,
    /// Go back to the one that ships
    #[arg(long, conflicts_with_all = ["file", "key", "unsigned"])]
    shipped: bool,
}

/// What was said of a file.
#[derive(Debug, Serialize)]
struct Said<'f> {
    file: &'f Path,
    #[serde(flatten)]
    opinion: Opinion,
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: &SpamArgs) -> Result<(), Failure> {
    let json = args.office.json;
    let account = args.account.as_deref();
    if let SpamCommand::Reset { yes } = &args.command {
        let whose = account.unwrap_or("this box and all its accounts");
        if !yes && !ask::is_possible() {
            return Err(Failure(format!("this forgets all that {whose} taught the filter; say --yes if it is meant")));
        }
        if !yes && !ask::are_you_sure(&format!("Forget all that {whose} taught the filter?"))? {
            return Err(Failure("nothing was forgotten".into()));
        }
        let mut office = DataOffice::open(&args.office.data)?;
        return done(&mut office, Order::Spam { account: args.account.clone(), task: SpamTask::Reset });
    }
    if let SpamCommand::Seed(seed) = &args.command {
        return install_seed(&args.office.data, seed);
    }
    let (files, class) = match &args.command {
        SpamCommand::Train { class, files } => (files, Some(Some(if class.spam { Class::Spam } else { Class::Ham }))),
        SpamCommand::Untrain { files } => (files, Some(None)),
        SpamCommand::Score { files } | SpamCommand::Explain { files } => (files, None),
        SpamCommand::Reset { .. } | SpamCommand::Seed(_) => return Ok(()),
    };
    let mut office = DataOffice::open(&args.office.data)?;
    let mut out = io::stdout().lock();
    let mut taught = 0_u64;
    for given in files {
        each_message(given, &mut |file, head| {
            let head = base64::engine::general_purpose::STANDARD.encode(head);
            let task = match class {
                Some(class) => SpamTask::Teach { head, class },
                None => SpamTask::Score { head },
            };
            let order = Order::Spam { account: account.map(ToOwned::to_owned), task };
            let Outcome::Spam { opinion } = office.give(order)? else { return Err(unexpected()) };
            taught += u64::from(class.is_some_and(|class| class != opinion.taught));
            match &args.command {
                SpamCommand::Score { .. } | SpamCommand::Explain { .. } if json => {
                    show::json(&mut out, &Said { file, opinion: *opinion })?;
                }
                SpamCommand::Score { .. } => writeln!(out, "{}", line(file, &opinion))?,
                SpamCommand::Explain { .. } => explain(&mut out, file, &opinion)?,
                _ => {}
            }
            Ok(())
        })?;
    }
    if class.is_some() {
        if json {
            show::json(&mut out, &serde_json::json!({ "taught": taught }))?;
        } else {
            let s = if taught == 1 { "" } else { "s" };
            writeln!(out, "{taught} message{s} taught; what was known as that before is not counted")?;
        }
    }
    Ok(())
}

/// Puts a seed into the data folder, or takes it out, and has the server take it.
fn install_seed(data: &Path, args: &SeedArgs) -> Result<(), Failure> {
    let place = data.join(SEED_FILE);
    if let Some(file) = &args.file {
        let named = |error: String| Failure(format!("{}: {error}", file.display()));
        read_seed(file).map_err(named)?;
        let bytes = std::fs::read(file)?;
        match &args.key {
            Some(key) => verify(&bytes, file, key)?,
            None if args.unsigned => {}
            None => return Err(Failure("name the key its maker signs with (--key KEY), or say --unsigned".into())),
        }
        // It is no secret, and the server's user must be able to read what root put there.
        write_atomically(&place, &bytes, 0o644).map_err(|error| Failure(format!("{}: {error}", place.display())))?;
    } else if let Err(error) = std::fs::remove_file(&place)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(Failure(format!("{}: {error}", place.display())));
    }
    let mut office = DataOffice::open(data)?;
    done(&mut office, Order::Spam { account: None, task: SpamTask::Reseed })
}

/// Makes sure that whoever holds the key made the file.
fn verify(bytes: &[u8], file: &Path, key: &str) -> Result<(), Failure> {
    let signature = PathBuf::from(format!("{}.minisig", file.display()));
    let named = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", signature.display()));
    let text = std::fs::read_to_string(key);
    let key = match &text {
        Ok(text) => PublicKey::decode(text),
        Err(_) => PublicKey::from_base64(key),
    };
    let key = key.map_err(|_| Failure("this is no public key of minisign, nor a file with one".into()))?;
    let text = std::fs::read_to_string(&signature).map_err(|error| named(&error))?;
    let found = Signature::decode(&text).map_err(|_| named(&"this is no signature of minisign"))?;
    key.verify(bytes, &found, false)
        .map_err(|_| named(&"it was not made with this key for this file; nothing was changed"))
}

/// Takes a file and its beginning.
type TakeHead<'t> = dyn FnMut(&Path, &[u8]) -> Result<(), Failure> + 't;

/// The beginning of each message that a name stands for.
fn each_message(given: &Path, take: &mut TakeHead<'_>) -> Result<(), Failure> {
    let named = |error: io::Error| Failure(format!("{}: {error}", given.display()));
    if given.as_os_str() == "-" {
        return take(given, &head(&mut io::stdin().lock()).map_err(named)?);
    }
    if !given.is_dir() {
        return take(given, &File::open(given).and_then(|mut file| head(&mut file)).map_err(named)?);
    }
    let mut within = std::fs::read_dir(given).map_err(named)?.collect::<io::Result<Vec<_>>>().map_err(named)?;
    within.sort_by_key(std::fs::DirEntry::file_name);
    for entry in within {
        // Neither what a Maildir is writing just now, nor what programs keep beside the mail.
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.') || name == "tmp";
        if !hidden && !entry.file_type().map_err(named)?.is_symlink() {
            each_message(&entry.path(), take)?;
        }
    }
    Ok(())
}

fn head(from: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    from.take(WINDOW_MAX as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn line(file: &Path, opinion: &Opinion) -> String {
    format!("{}: {:.4} {}", file.display(), opinion.probability, fate(opinion.fate))
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Accept => "accept",
        Fate::Junk => "junk",
        Fate::Reject => "reject",
    }
}

fn explain(out: &mut impl Write, file: &Path, opinion: &Opinion) -> io::Result<()> {
    writeln!(out, "{}", line(file, opinion))?;
    if let Some(class) = opinion.taught {
        let class = if class == Class::Spam { "spam" } else { "wanted" };
        writeln!(out, "  it was taught as {class}")?;
    }
    writeln!(out, "  score {:+.2} (above 0 is spam), made of", opinion.score)?;
    for share in &opinion.judgement.shares {
        writeln!(out, "    {:+.2}  {}", share.logit, share.what)?;
    }
    if !opinion.judgement.reasons.is_empty() {
        writeln!(out, "  strongest reasons")?;
    }
    for reason in &opinion.judgement.reasons {
        writeln!(out, "    {:+.2}  {}", reason.logit, shown(&reason.what))?;
    }
    Ok(())
}

/// What a message says, without what would move a terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
