//! A Postfix for tests: its own configuration, queue, log and mailboxes in a temporary folder, on one loopback port.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Whom the mailboxes belong to; Postfix delivers to no system account.
const OWNER: u32 = 5600;

/// A Postfix that stops when it is dropped.
pub(crate) struct Postfix {
    folder: TempDir,
}

/// Tells whether a Postfix can be started here; says so in one visible line where not.
pub(crate) fn may_start() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    let root = id.stdout.starts_with(b"0\n");
    if !root {
        eprintln!("SKIPPED Postfix as a peer: only root can start one");
        assert!(std::env::var_os("PILLARBOX_REQUIRE_CLIENTS").is_none(), "Postfix needs root");
    }
    root
}

impl Postfix {
    /// Starts one for `postfix.test` that sends mail for `pillarbox.test` to `box_port`.
    pub(crate) fn start(port: u16, box_port: u16, tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        // Postfix gives up root's rights and must still reach what is below.
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["etc", "queue", "data", "mail"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        let user = Command::new("id").args(["-u", "postfix"]).output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap().trim().parse().unwrap();
        chown(at.join("data"), Some(user), None).unwrap();
        chown(at.join("mail"), Some(OWNER), Some(OWNER)).unwrap();
        make_certificate(&at.join("etc"));
        fs::write(at.join("etc/main.cf"), main_cf(at, box_port, tls)).unwrap();
        fs::write(at.join("etc/master.cf"), master_cf(port)).unwrap();
        let postfix = Self { folder };
        postfix.order("start");
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return postfix;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("Postfix does not listen:\n{}", postfix.log());
    }

    /// The folder of its mailboxes, an mbox for each user.
    pub(crate) fn boxes(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("postfix.log")).unwrap_or_default()
    }

    fn order(&self, what: &str) {
        let ended = Command::new("postfix").arg("-c").arg(self.folder.path().join("etc")).arg(what).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success() || std::thread::panicking(), "postfix {what}: {said}\n{}", self.log());
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Postfix's log:\n{}", self.log());
        }
        self.order("stop");
    }
}

fn make_certificate(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    openssl.args(["-subj", "/CN=postfix.test", "-addext", "subjectAltName=DNS:postfix.test"]);
    openssl.arg("-keyout").arg(folder.join("key.pem")).arg("-out").arg(folder.join("cert.pem"));
    assert!(openssl.output().unwrap().status.success());
}

fn main_cf(at: &Path, box_port: u16, tls: bool) -> String {
    let at = at.display();
    let level = if tls { "may" } else { "none" };
    format!(
        "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\n\
         maillog_file = {at}/postfix.log\nmaillog_file_prefixes = {at}\nmyhostname = postfix.test\nmydestination =\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nmessage_size_limit = 60000000\n\
         mailbox_size_limit = 0\nvirtual_mailbox_limit = 0\nsmtp_dns_support_level = disabled\nsmtp_host_lookup = native\n\
         transport_maps = inline:{{ {{ pillarbox.test = smtp:[127.0.0.1]:{box_port} }} }}\n\
         virtual_mailbox_domains = postfix.test\nvirtual_mailbox_base = {at}/mail\n\
         virtual_mailbox_maps = inline:{{ {{ bob@postfix.test = bob }} {{ jürgen@postfix.test = jurgen }} }}\n\
         virtual_uid_maps = static:{OWNER}\nvirtual_gid_maps = static:{OWNER}\nvirtual_minimum_uid = 100\n\
         smtputf8_enable = yes\nsmtpd_tls_security_level = {level}\nsmtpd_tls_cert_file = {at}/etc/cert.pem\n\
         smtpd_tls_key_file = {at}/etc/key.pem\nsmtp_tls_security_level = {level}\nsmtpd_tls_received_header = yes\n"
    )
}

fn master_cf(port: u16) -> String {
    let services = "cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
                    rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                    trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\nflush unix n - n 1000? 0 flush\n\
                    proxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\nerror unix - - n - - error\n\
                    retry unix - - n - - error\nvirtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\n\
                    scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n";
    format!("127.0.0.1:{port} inet n - n - - smtpd\n{services}")
}
