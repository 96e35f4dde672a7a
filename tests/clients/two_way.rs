//! Clients that keep two sides alike: offlineimap, getmail, neomutt in a window of tmux, and a library of Node.
//! What one side did is looked for on the other, which here is curl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::server::{Server, installed, run, succeed};
use super::{LETTER, curl, curl_send, maildir};

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the server says to one command of the second account in a mailbox.
fn ask(server: &Server, mailbox: &str, command: &str) -> String {
    let url = format!("imaps://localhost:{}/{mailbox}", server.port("imaps"));
    succeed(curl(server, &url, 1).args(["-X", command]), b"")
}

/// A letter from the first account to the second, with this subject.
fn send(server: &Server, subject: &str) {
    let url = format!("smtps://localhost:{}", server.port("submissions"));
    succeed(&mut curl_send(server, &url, &[]), LETTER.replace("by curl", subject).as_bytes());
}

/// Waits until `holds`; panics with `what` when it takes too long.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The file of a maildir that holds this text.
fn file_with(folder: &Path, text: &str) -> Option<PathBuf> {
    maildir(folder).into_iter().find(|path| fs::read_to_string(path).is_ok_and(|letter| letter.contains(text)))
}

/// Gives a file of a maildir these flags.
fn mark(path: &Path, flags: &str) {
    let name = path.file_name().unwrap().to_str().unwrap().split(":2,").next().unwrap().to_owned();
    fs::rename(path, path.parent().unwrap().with_file_name("cur").join(format!("{name}:2,{flags}"))).unwrap();
}

#[test]
fn offlineimap_carries_mail_flags_and_deletions_both_ways() {
    if !installed(&["offlineimap", "curl"], "OfflineIMAP") {
        return;
    }
    let server = Server::start();
    let (address, password) = server.account(1);
    let room = tempfile::tempdir().unwrap();
    let (config, near) = (room.path().join("offlineimaprc"), room.path().join("mail"));
    let text = format!(
        "[general]\naccounts = box\nmetadata = {room}/state\n[Account box]\nlocalrepository = near\nremoterepository = far\n\
         [Repository near]\ntype = Maildir\nlocalfolders = {near}\n\
         [Repository far]\ntype = IMAP\nremotehost = localhost\nremoteport = {port}\nssl = yes\nsslcacertfile = {ca}\n\
         remoteuser = {address}\nremotepass = {password}\n",
        room = room.path().display(),
        near = near.display(),
        port = server.port("imaps"),
        ca = server.ca(),
    );
    fs::write(&config, text).unwrap();
    let sync = || {
        let mut offlineimap = Command::new("offlineimap");
        succeed(offlineimap.args(["-o", "-1", "-u", "basic", "-c"]).arg(&config).env("HOME", room.path()), b"")
    };
    let (inbox, archive) = (near.join("INBOX"), near.join("Archive"));

    // Down, with the standard mailboxes.
    send(&server, "the first");
    send(&server, "the second");
    sync();
    assert_eq!(maildir(&inbox).len(), 3);
    assert!(near.join("Drafts/cur").is_dir() && archive.join("cur").is_dir());

    // Flags both ways, mail written here up, a mailbox made here up.
    mark(&file_with(&inbox, "the first").unwrap(), "FS");
    ask(&server, "INBOX", "STORE 3 +FLAGS (\\Answered)");
    fs::write(archive.join("cur/1.1.here:2,S"), "Subject: written here\n\nbody\n").unwrap();
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(near.join("Made here").join(part)).unwrap();
    }
    fs::write(near.join("Made here/new/2.1.here"), "Subject: elsewhere\n\nbody\n").unwrap();
    sync();
    let flags = ask(&server, "INBOX", "FETCH 2 FLAGS");
    assert!(flags.contains("\\Flagged") && flags.contains("\\Seen"), "{flags}");
    assert!(file_with(&inbox, "the second").unwrap().to_str().unwrap().ends_with(":2,R"));
    assert!(ask(&server, "Archive", "SEARCH SEEN SUBJECT \"written here\"").contains("SEARCH 1"));
    assert!(ask(&server, "Made%20here", "SEARCH UNSEEN SUBJECT elsewhere").contains("SEARCH 1"));

    // Moved here: gone there and come there. Moved there: the same here.
    let path = file_with(&inbox, "the first").unwrap();
    fs::rename(&path, archive.join("cur").join("3.1.here:2,FS")).unwrap();
    ask(&server, "INBOX", "MOVE 3 Archive");
    sync();
    assert!(ask(&server, "INBOX", "SEARCH ALL").trim_end().ends_with("SEARCH 1"));
    assert!(ask(&server, "Archive", "SEARCH FLAGGED SUBJECT \"the first\"").trim_end().len() > "* SEARCH".len());
    assert!(file_with(&inbox, "the second").is_none() && file_with(&archive, "the second").is_some());

    // Deleted on either side, and then both are as they were left.
    fs::remove_file(file_with(&archive, "written here").unwrap()).unwrap();
    ask(&server, "INBOX", "STORE 1 +FLAGS (\\Deleted)");
    ask(&server, "INBOX", "EXPUNGE");
    sync();
    assert!(maildir(&inbox).is_empty());
    assert_eq!(ask(&server, "Archive", "SEARCH SUBJECT written").trim_end(), "* SEARCH");
    let before = (maildir(&archive), ask(&server, "Archive", "FETCH 1:* (UID FLAGS)"));
    sync();
    assert_eq!((maildir(&archive), ask(&server, "Archive", "FETCH 1:* (UID FLAGS)")), before);
}

/// A program that runs on, ended by its process id.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn getmail_takes_mail_moves_what_it_took_and_hears_of_new_mail_while_it_idles() {
    if !installed(&["getmail", "curl"], "getmail") {
        return;
    }
    let server = Server::start();
    let (address, password) = server.account(1);
    let room = tempfile::tempdir().unwrap();
    let taken = room.path().join("taken");
    fs::create_dir_all(taken.join("new")).unwrap();
    // It refuses to write a Maildir as root.
    let config = |name: &str, kind: &str, listener: &str, more: &str, options: &str| {
        let text = format!(
            "[retriever]\ntype = {kind}\nserver = localhost\nport = {}\nusername = {address}\npassword = {password}\n\
             ca_certs = {}\ntimeout = 30\n{more}[destination]\ntype = MDA_external\npath = /bin/sh\n\
             arguments = (\"-c\", \"cat > `mktemp -p {}/new`\")\nallow_root_commands = true\n\
             [options]\nread_all = false\n{options}",
            server.port(listener),
            server.ca(),
            taken.display(),
        );
        fs::write(room.path().join(name), text).unwrap();
    };
    let getmail = |name: &str| {
        let mut getmail = Command::new("getmail");
        getmail.arg(format!("--getmaildir={}", room.path().display())).arg(format!("--rcfile={name}"));
        getmail.env("HOME", room.path());
        getmail
    };

    // By IMAP: what was taken is moved there, and not taken twice.
    let more = "mailboxes = (\"INBOX\",)\nmove_on_delete = Archive\n";
    config("imap", "SimpleIMAPSSLRetriever", "imaps", more, "delete = true\n");
    send(&server, "the first");
    succeed(&mut getmail("imap"), b"");
    assert!(maildir(&taken).len() == 2 && file_with(&taken, "the first").is_some());
    assert_eq!(ask(&server, "INBOX", "SEARCH ALL").trim_end(), "* SEARCH");
    assert!(ask(&server, "Archive", "SEARCH SUBJECT \"the first\"").contains("SEARCH 2"));
    succeed(&mut getmail("imap"), b"");
    assert_eq!(maildir(&taken).len(), 2);

    // New mail while it idles.
    let idling = getmail("imap").args(["--idle", "INBOX"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let idling = Running(idling);
    std::thread::sleep(Duration::from_secs(2));
    send(&server, "while idle");
    wait_until("mail in IDLE", || file_with(&taken, "while idle").is_some());
    wait_until("it was moved", || ask(&server, "Archive", "SEARCH SUBJECT \"while idle\"").contains("SEARCH 3"));
    drop(idling);

    // By POP3: what was taken stays by its UIDL and is not taken twice; then it is deleted.
    config("pop", "SimplePOP3SSLRetriever", "pop3s", "", "");
    send(&server, "by pop");
    succeed(&mut getmail("pop"), b"");
    succeed(&mut getmail("pop"), b"");
    assert_eq!(maildir(&taken).len(), 4);
    assert!(ask(&server, "INBOX", "SEARCH SUBJECT \"by pop\"").trim_end().len() > "* SEARCH".len());
    config("pop", "SimplePOP3SSLRetriever", "pop3s", "", "delete = true\n");
    succeed(&mut getmail("pop"), b"");
    assert_eq!(maildir(&taken).len(), 4);
    assert_eq!(ask(&server, "INBOX", "SEARCH ALL").trim_end(), "* SEARCH");
}

/// A window of tmux, on a server of its own that ends with it.
struct Window(PathBuf);

impl Window {
    fn tmux(&self, arguments: &[&str]) -> String {
        succeed(Command::new("tmux").arg("-S").arg(&self.0).args(arguments), b"")
    }

    /// Types keys, by tmux's names.
    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "mutt"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "mutt"])
    }

    /// Waits for a text on the screen.
    fn shows(&self, text: &str) {
        let begun = Instant::now();
        while !self.screen().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "no {text:?} on the screen:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a text has left the screen.
    fn hides(&self, text: &str) {
        let begun = Instant::now();
        while self.screen().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{text:?} stays on the screen:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = run(Command::new("tmux").arg("-S").arg(&self.0).arg("kill-server"), b"");
    }
}

#[test]
fn neomutt_reads_writes_flags_saves_and_hears_of_new_mail() {
    if !installed(&["neomutt", "tmux", "curl"], "NeoMutt in a window of tmux") {
        return;
    }
    let server = Server::start();
    let (address, password) = server.account(1);
    let room = tempfile::tempdir().unwrap();
    let config = room.path().join("muttrc");
    let escaped = address.replace('@', "%40");
    let text = format!(
        "set folder = \"imaps://localhost:{port}/\"\nset spoolfile = \"+INBOX\"\nset record = \"+Sent\"\n\
         set postponed = \"+Drafts\"\nset trash = \"+Trash\"\n\
         set imap_user = \"{address}\"\nset imap_pass = \"{password}\"\nset smtp_pass = \"{password}\"\n\
         set smtp_url = \"smtps://{escaped}@localhost:{smtps}/\"\nset from = \"{address}\"\nset use_from = yes\n\
         set ssl_ca_certificates_file = \"{ca}\"\nset certificate_file = \"{room}/trusted\"\n\
         set ssl_verify_host = yes\nset imap_idle = yes\nset imap_qresync = yes\nset mail_check = 1\nset timeout = 1\n\
         set imap_check_subscribed = no\nset edit_headers = no\nset editor = \"true\"\nset abort_unmodified = no\nset sort = date-received\n\
         set confirmappend = no\nset delete = yes\nset quit = yes\nset copy = yes\nset move = no\nset wait_key = no\n\
         set postpone = yes\nset header_cache = \"{room}/cache\"\nset sleep_time = 0\nset beep = no\nset fcc_before_send = no\n\
         set sendmail_wait = 0\nset mark_old = no\nset auto_tag = no\nset resolve = no\nmailboxes +INBOX +Archive\n",
        port = server.port("imaps"),
        smtps = server.port("submissions"),
        ca = server.ca(),
        room = room.path().display(),
    );
    fs::write(&config, text).unwrap();
    send(&server, "the first");
    send(&server, "the second");

    let window = Window(room.path().join("tmux"));
    let mut start = Command::new("tmux");
    start.env("HOME", room.path()).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    start.arg("-S").arg(&window.0).args(["-f", "/dev/null", "new-session", "-d", "-s", "mutt"]);
    start.args(["-x", "140", "-y", "40"]);
    succeed(start.arg(format!("neomutt -n -F {}", config.display())), b"");
    window.shows("the second");
    assert!(window.screen().contains("the first"), "{}", window.screen());

    // A flag from here, and one from there.
    window.keys(&["2", "Enter"]);
    window.keys(&["F"]);
    window.keys(&["$"]);
    wait_until("the flag", || ask(&server, "INBOX", "SEARCH FLAGGED").trim_end().ends_with("SEARCH 2"));

    // New mail while it waits, and a message that somebody else removed.
    send(&server, "just come");
    window.shows("just come");
    ask(&server, "INBOX", "STORE 3 +FLAGS (\\Deleted)");
    ask(&server, "INBOX", "EXPUNGE");
    window.hides("the second");

    // Saved in another mailbox.
    window.keys(&["/", "~s \"the first\"", "Enter"]);
    window.keys(&["s"]);
    window.shows("Save to mailbox");
    window.keys(&["C-u"]);
    window.keys(&["=Archive", "Enter"]);
    window.keys(&["$"]);
    wait_until("the message is in Archive", || {
        ask(&server, "Archive", "SEARCH SUBJECT \"the first\"").contains("SEARCH 1")
    });
    wait_until("it left INBOX", || ask(&server, "INBOX", "SEARCH SUBJECT \"the first\"").trim_end() == "* SEARCH");

    // Written, sent by submission and put into Sent.
    window.keys(&["m"]);
    window.shows("To:");
    window.keys(&[address, "Enter"]);
    window.shows("Subject:");
    window.keys(&["written in a window", "Enter"]);
    window.shows("Security:");
    window.keys(&["y"]);
    wait_until("it is in Sent", || ask(&server, "Sent", "SEARCH SEEN SUBJECT window").contains("SEARCH 1"));
    window.shows("written in a window");
    assert!(ask(&server, "INBOX", "SEARCH SUBJECT \"written in a window\"").trim_end().len() > "* SEARCH".len());

    // Deleted here goes to Trash there.
    window.keys(&["/", "~s \"just come\"", "Enter"]);
    window.keys(&["d"]);
    window.keys(&["q"]);
    wait_until("it is in Trash", || ask(&server, "Trash", "SEARCH SUBJECT \"just come\"").contains("SEARCH 1"));
    wait_until("it left INBOX", || ask(&server, "INBOX", "SEARCH SUBJECT \"just come\"").trim_end() == "* SEARCH");
}

/// `.ci/run` puts it, with what it needs, below `target/clients/node`.
#[test]
fn imapflow_hears_of_every_change_and_resyncs() {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node/node_modules");
    let main = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/node/node_modules/imapflow/package.json");
    if !installed(&["node", main], "ImapFlow") {
        return;
    }
    let server = Server::start();
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/imapflow.mjs")).arg(modules).arg(server.ca());
    node.arg(server.port("imaps")).arg(server.account(0).0).arg(server.account(0).1);
    assert!(succeed(&mut node, b"").ends_with("all well\n"));
}
