//! `pillarbox setup`: takes over what `pillarbox-setup.toml` on a card's boot partition says.
//!
//! The image calls it at each start, before the server. It writes the config file and the Wi-Fi's, adds the
//! account, tells in a report what it did, and then writes the setup file anew without what was in it. A file
//! that is wrong changes nothing: the report and standard output say what is wrong, and the box runs with what
//! it had. At the very first start without a good file it makes the accounts of `pillarbox try`, and shows their
//! passwords once, on standard output.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Failure, print};
use crate::config::first::{FILE_MAX, FirstAccount, FirstSetup, Place, TEMPLATE};
use crate::daemon::login::random;
use crate::daemon::rights::{self, User};
use crate::mail::secret::Password;
use crate::net::authority::write_atomically;

/// Who lives on a box that was told nothing.
const PEOPLE: [&str; 2] = ["ann@pillarbox.local", "bob@pillarbox.local"];

/// Arguments of `setup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The setup file
    #[arg(long, value_name = "FILE", default_value = "/boot/pillarbox-setup.toml")]
    file: PathBuf,
    /// Where to report
    #[arg(long, value_name = "FILE", default_value = "/boot/pillarbox-report.txt")]
    report: PathBuf,
    /// The config file to write
    #[arg(long, value_name = "FILE", default_value = "/data/config/pillarbox.toml")]
    config: PathBuf,
    /// The Wi-Fi's file to write
    #[arg(long, value_name = "FILE", default_value = "/data/config/wifi.conf")]
    wifi: PathBuf,
    /// Data folder of the server
    #[arg(long, value_name = "DIR", default_value = "/data/mail")]
    data: PathBuf,
    /// The mount point the data folder is on
    #[arg(long, value_name = "DIR", default_value = "/data")]
    mount: PathBuf,
    /// The user the server becomes
    #[arg(long, default_value = "pillarbox")]
    user: String,
}

/// An account to make, and whether its password was made up.
struct Person {
    address: String,
    password: Password,
    made_up: bool,
}

/// Does what the file says; an error is one sentence and was reported.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let first = !args.config.exists();
    let (text, unreadable) = match read(&args.file) {
        Ok(text) => (text, None),
        Err(failure) => (String::new(), Some(failure.to_string())),
    };
    let name = args.file.file_name().map_or(args.file.as_path(), Path::new);
    let place = Place { data: &args.data, mount: &args.mount, user: &args.user };
    let before = fs::read_to_string(&args.config).ok();
    let wanted = FirstSetup::parse(&text, name)
        .and_then(|setup| setup.config(before.as_deref(), place).map(|config| (setup, config)));
    let (setup, config, wrong) = match wanted {
        Ok((setup, _)) if setup.is_empty() && !first && unreadable.is_none() => return Ok(()),
        Ok((setup, config)) => (setup, config, unreadable),
        Err(error) => {
            let nothing = FirstSetup::default();
            let config = nothing.config(before.as_deref(), place)?;
            (nothing, config, Some(error.to_string()))
        }
    };
    let mut report = format!("Pillarbox {}\n\n", env!("CARGO_PKG_VERSION"));
    if let Some(wrong) = &wrong {
        say(&mut report, &format!("The setup file was not understood, and nothing of it was done:\n  {wrong}"));
        say(&mut report, "Set it right on a laptop and switch the box on again.");
    }
    let done = take_over(args, &setup, first, &config, &mut report);
    if let Err(failure) = &done {
        say(&mut report, &format!("This went wrong: {failure}."));
    } else if !setup.is_empty() {
        overwrite(&args.file, text.len())?;
        let _ = writeln!(report, "The setup file was written anew, without what was in it.");
    }
    write_atomically(&args.report, report.replace('\n', "\r\n").as_bytes(), 0o644)?;
    done?;
    wrong.map_or(Ok(()), |wrong| Err(wrong.into()))
}

/// Does what is wanted. The config file comes last: as long as there is none, the next start begins anew.
fn take_over(args: &Args, setup: &FirstSetup, first: bool, config: &str, report: &mut String) -> Result<(), Failure> {
    if let Some(wifi) = &setup.wifi {
        make_parent(&args.wifi)?;
        write_atomically(&args.wifi, wifi.supplicant().as_bytes(), 0o600)?;
        say(report, &format!("The Wi-Fi network is \"{}\".", wifi.name));
    }
    let user = rights::user_to_become(Some(&args.user), false)?;
    rights::prepare_folder(&args.data, user.as_ref())?;
    let clerk = Clerk { data: &args.data, user };
    if let Some(domain) = &setup.domain {
        if clerk.order(&["domain", "add", domain], None).is_err() {
            let domains = clerk.order(&["domain", "list"], None)?;
            if !domains.lines().any(|line| line.eq_ignore_ascii_case(domain)) {
                return Err(format!("the domain {domain} could not be added").into());
            }
        }
        say(report, &format!("Mail for {domain} stays here."));
    }
    for person in people(setup, first)? {
        let sentence = settle(&clerk, &person)?;
        say(report, &sentence);
        if person.made_up {
            // On the console alone: whoever takes the card out does not find it.
            print(&format!("  Setup code: account {}, password {}\n", person.address, person.password.reveal()))?;
            let _ = writeln!(report, "  Its password was shown on the screen and the serial line.");
        }
    }
    if first || setup.settings.is_some() || setup.hostname.is_some() {
        make_parent(&args.config)?;
        write_atomically(&args.config, config.as_bytes(), 0o644)?;
        say(report, &format!("The settings were written to {}.", args.config.display()));
    }
    Ok(())
}

/// Gives orders about the data folder as the user it belongs to: this program again, under that user.
struct Clerk<'a> {
    data: &'a Path,
    user: Option<User>,
}

impl Clerk<'_> {
    /// Runs a command of ours and returns what it printed.
    fn order(&self, words: &[&str], password: Option<&Password>) -> Result<String, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).arg("--data").arg(self.data);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(password)) = (child.stdin.take(), password) {
            writeln!(stdin, "{}", password.reveal())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.trim().trim_start_matches("pillarbox: ").to_owned().into())
    }
}

/// The setup file's text; none is as an empty one.
fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => {
            let taken = file.take(FILE_MAX + 1).read_to_string(&mut text);
            taken.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => format!("{} is not UTF-8 text: save it as such", path.display()),
                _ => format!("{} cannot be read: {error}", path.display()),
            })?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display()).into()),
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(format!("{} has more than {FILE_MAX} bytes; is it another file?", path.display()).into());
    }
    // Some editors put a mark before UTF-8.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A line of the report, which the console shows as well.
fn say(report: &mut String, line: &str) {
    let _ = writeln!(report, "{line}");
    // Without a console there is the report.
    let _ = print(&format!("{line}\n"));
}

/// The accounts to make.
fn people(setup: &FirstSetup, first: bool) -> Result<Vec<Person>, Failure> {
    let made_up =
        |address: &str| Person { address: address.to_owned(), password: Password::generate(&random()), made_up: true };
    Ok(match &setup.account {
        Some(FirstAccount { address, password: Some(password) }) => {
            let password = Password::new(password.clone()).ok_or("the password is empty")?;
            vec![Person { address: address.clone(), password, made_up: false }]
        }
        Some(FirstAccount { address, password: None }) => vec![made_up(address)],
        None if first => PEOPLE.map(made_up).into(),
        None => Vec::new(),
    })
}

/// Adds the account, or gives it the password if it is there.
fn settle(clerk: &Clerk<'_>, person: &Person) -> Result<String, Failure> {
    let Person { address, password, .. } = person;
    let Err(refusal) = clerk.order(&["account", "add", address, "--password-stdin"], Some(password)) else {
        return Ok(format!("The account {address} was added."));
    };
    // The reason why it could not be added says more, unless it is there.
    clerk.order(&["account", "password", address, "--password-stdin"], Some(password)).map_err(|_| refusal)?;
    Ok(format!("The account {address} has a new password."))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Writes over what was there, in place, before the file is as on a fresh card again.
fn overwrite(path: &Path, length: usize) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&vec![b' '; length])?;
    file.sync_all()?;
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(TEMPLATE.as_bytes())?;
    file.sync_all()
}
