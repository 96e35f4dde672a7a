//! `pillarbox account certificate`, `certificates` and `revoke`: logging in with a certificate instead of
//! a password.
//!
//! The key is made here and written to the file that its owner takes to his device; the server learns
//! the certificate's fingerprint and nothing else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::tell;
use crate::cli::office::{Failure, Office, done, list_all};
use crate::cli::show;
use crate::daemon::control::{CertificateRow, Order, Outcome};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::net::authority::{CLIENT_DAYS_MAX, issue_client};
use crate::net::presented::read_certificate;

/// What is done with certificates.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum CertificateCommand {
    /// Let a device log in to an account with a certificate
    ///
    /// Makes a key and a certificate and writes them to FILE; or registers a certificate that was made elsewhere,
    /// whoever signed it. The device then logs in over TLS by SASL EXTERNAL, without a password. Whoever has the key
    /// can read the account's mail, so keep FILE as you would keep a password.
    Certificate {
        /// The account's address
        address: String,
        /// What to call it, such as the device it is for
        #[arg(long)]
        name: String,
        /// Where to write key, certificate and authority, in PEM form
        #[arg(long, value_name = "FILE", required_unless_present = "add", conflicts_with = "add")]
        out: Option<PathBuf>,
        /// How many days it is good for
        #[arg(long, value_name = "N", default_value_t = 730, conflicts_with = "add",
              value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENT_DAYS_MAX)))]
        days: u32,
        /// Register the certificate in this PEM file instead
        #[arg(long, value_name = "FILE")]
        add: Option<PathBuf>,
    },
    /// List the certificates that accounts log in with
    Certificates {
        /// Of this account alone
        address: Option<String>,
    },
    /// Let a certificate log in no more
    ///
    /// Sessions that are open stay open, as with a change of password.
    Revoke {
        /// The account's address
        address: String,
        /// What the certificate is called
        name: String,
    },
}

/// Carries a command out; `tls` is the folder of the server's authority.
pub(super) fn obey(
    command: CertificateCommand,
    tls: &Path,
    office: &mut impl Office,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match command {
        CertificateCommand::Certificate { address, name, add: Some(file), .. } => {
            let (fingerprint, expires) = read_certificate(&file).map_err(|error| Failure(error.to_string()))?;
            let fingerprint = fingerprint.to_string();
            let told = json!({ "address": address, "name": name, "fingerprint": fingerprint, "expires": expires.0 });
            let text = format!("{address} may log in with {name} until {}", day(expires));
            done(office, Order::AddCertificate { address, name, fingerprint, expires: expires.0 })?;
            tell(json, out, &told, &text)
        }
        CertificateCommand::Certificate { address, name, out: file, days, .. } => {
            // The command line asks for one of the two.
            let file = file.ok_or_else(|| Failure("say where to write the certificate with --out".into()))?;
            let issued = issue_client(tls, &address, days).map_err(|error| Failure(error.to_string()))?;
            write_new(&file, issued.pem.as_bytes())?;
            let (fingerprint, expires) = (issued.fingerprint.to_string(), issued.expires);
            let order = Order::AddCertificate {
                address: address.clone(),
                name: name.clone(),
                fingerprint: fingerprint.clone(),
                expires: expires.0,
            };
            if let Err(failure) = done(office, order) {
                // Nobody can log in with it, so nobody needs it.
                let _ = fs::remove_file(&file);
                return Err(failure);
            }
            let shown = file.display().to_string();
            let told = json!({
                "address": address, "name": name, "fingerprint": fingerprint, "expires": expires.0, "file": shown
            });
            let text = format!(
                "{address} may log in with {shown} until {}\nFor programs that want PKCS#12: openssl pkcs12 -export \
                 -in {shown} -out {}",
                day(expires),
                file.with_extension("p12").display()
            );
            tell(json, out, &told, &text)
        }
        CertificateCommand::Certificates { address } => {
            let order = |skip| Order::ListCertificates { address: address.clone(), skip };
            let rows = list_all(office, order, |outcome| match outcome {
                Outcome::Certificates { certificates } => Some(certificates),
                _ => None,
            })?;
            list(&rows, json, out)
        }
        CertificateCommand::Revoke { address, name } => {
            done(office, Order::RemoveCertificate { address: address.clone(), name: name.clone() })?;
            let told = json!({ "address": address, "revoked": name });
            tell(json, out, &told, &format!("{name} lets nobody in to {address} any more"))
        }
    }
}

/// Writes a file that is not there yet, for its owner alone.
fn write_new(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure(format!("{}: {error}", file.display()));
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    new.write_all(bytes).and_then(|()| new.sync_all()).map_err(|error| {
        let _ = fs::remove_file(file);
        failed(error)
    })
}

fn list(rows: &[CertificateRow], json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        return Ok(show::json(out, &rows)?);
    }
    let mut table = vec![["ACCOUNT", "NAME", "ADDED", "UNTIL", "SHA-256 FINGERPRINT"].map(str::to_owned)];
    table.extend(rows.iter().map(|row| {
        let until = format!("{}{}", day(Timestamp(row.expires)), if row.over { " (over)" } else { "" });
        [row.address.clone(), row.name.clone(), day(Timestamp(row.added)), until, row.fingerprint.clone()]
    }));
    Ok(show::table(out, &table)?)
}

fn day(at: Timestamp) -> String {
    // `Mon, 23 Nov 2026 12:00:00 +0000`
    let text = ZonedTime::utc(at).to_rfc5322();
    text.split(' ').skip(1).take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;
    use std::os::unix::fs::PermissionsExt as _;

    fn said(command: CertificateCommand, tls: &Path, office: &mut Script) -> Result<String, Failure> {
        let mut out = Vec::new();
        obey(command, tls, office, false, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn certificate(out: Option<PathBuf>, add: Option<PathBuf>) -> CertificateCommand {
        CertificateCommand::Certificate { address: "ann@x.test".into(), name: "laptop".into(), out, days: 30, add }
    }

    #[test]
    fn what_is_written_is_what_is_registered_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("laptop.pem");
        let mut office = Script::new([Outcome::Done, Outcome::Done]);
        let text = said(certificate(Some(file.clone()), None), folder.path(), &mut office).unwrap();
        assert!(text.contains("openssl pkcs12 -export") && text.contains("laptop.p12"), "{text}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // The same file can be registered elsewhere.
        said(certificate(None, Some(file.clone())), folder.path(), &mut office).unwrap();
        let [first, second] = office.given.as_slice() else { panic!("{:?}", office.given) };
        assert!(matches!(first, Order::AddCertificate { .. }) && first == second, "{first:?} {second:?}");
        let again = said(certificate(Some(file), None), folder.path(), &mut office).unwrap_err();
        assert!(again.to_string().contains("exists"), "{again}");
    }

    #[test]
    fn a_certificate_that_is_refused_leaves_no_key_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("laptop.pem");
        let mut office = Script::refusing("there is no account ann@x.test");
        assert!(said(certificate(Some(file.clone()), None), folder.path(), &mut office).is_err());
        assert!(!file.exists());
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.pem");
        fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let mut office = Script::new([]);
        let error = said(certificate(None, Some(file.clone())), folder.path(), &mut office).unwrap_err();
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    }

    #[test]
    fn a_list_says_what_is_over() {
        let row = |name: &str, over| CertificateRow {
            address: "ann@x.test".into(),
            name: name.into(),
            fingerprint: "ab".repeat(32),
            added: 1_795_000_000,
            expires: 1_796_000_000,
            over,
        };
        let certificates = vec![row("laptop", false), row("phone", true)];
        let mut office = Script::new([Outcome::Certificates { certificates }]);
        let text = said(CertificateCommand::Certificates { address: None }, Path::new(""), &mut office).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ACCOUNT     NAME    ADDED        UNTIL "), "{text}");
        assert!(lines[1].contains("laptop  18 Nov 2026  30 Nov 2026 ") && !lines[1].contains("over"), "{text}");
        assert!(lines[2].contains("30 Nov 2026 (over)"), "{text}");
    }
}
