//! Detached signatures on ClamAV's containers, as `pillarbox signatures` looks at them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::office::Failure;
use crate::filter::scan::signature::cvd::{CvdHeader, HEADER_SIZE};
use crate::filter::scan::signature::detached::{FILE_MAX, read};

/// Checks the signature beside a container with the certificates in a file. Without such a file it only says
/// that there is one which nobody checks; the old signature within the container is checked in any case.
/// The container is `content`, and what it was copied from is `file`, beside which the signature stands.
///
/// # Errors
/// What is wrong with it, as one sentence.
pub(super) fn check(content: &Path, file: &Path, certificate: Option<&Path>) -> Result<(), Failure> {
    if !file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("cvd")) {
        return Ok(());
    }
    let (beside, Some(certificate)) = (signature_of(file), certificate) else {
        if let Some(beside) = signature_of(file) {
            eprintln!(
                "{}: detached signature not checked; name ClamAV's certificate with --certificate",
                beside.display()
            );
        }
        return Ok(());
    };
    let named = |path: &Path, error: &dyn std::fmt::Display| Failure(format!("{}: {error}", path.display()));
    let beside = beside.ok_or_else(|| named(file, &"there is no detached signature beside it; nothing was changed"))?;
    let pem = fs::read(certificate).map_err(|error| named(certificate, &error))?;
    let trusted: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    if trusted.is_empty() {
        return Err(named(certificate, &"there is no certificate in it; it has to be in PEM"));
    }
    let mut text = String::new();
    let limit = FILE_MAX as u64;
    File::open(&beside)
        .and_then(|from| from.take(limit).read_to_string(&mut text))
        .map_err(|error| named(&beside, &error))?;
    let signatures = read(&text);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for signature in &signatures {
        let digest = digest_of(content, signature.algorithm()).map_err(|error| named(file, &error))?;
        if signature.holds(digest.as_ref(), &trusted, now) {
            return Ok(());
        }
    }
    let why = if signatures.is_empty() {
        "this is no detached signature of ClamAV's that can be read; nothing was changed"
    } else {
        "it does not fit the file, or nobody in the named certificates vouches for it; nothing was changed"
    };
    Err(named(&beside, &why))
}

/// The signature beside a container: `FILE.sign`, or as freshclam names it, with the container's version.
fn signature_of(file: &Path) -> Option<PathBuf> {
    let mut plain = file.as_os_str().to_owned();
    plain.push(".sign");
    let mut head = [0; HEADER_SIZE];
    let header = File::open(file).and_then(|mut from| from.read_exact(&mut head)).ok();
    let version = header.and_then(|()| CvdHeader::parse(&head)).map(|header| header.version);
    let versioned = version.map(|version| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        file.with_file_name(format!("{stem}-{version}.cvd.sign"))
    });
    [Some(PathBuf::from(plain)), versioned].into_iter().flatten().find(|path| path.is_file())
}

fn digest_of(file: &Path, algorithm: &'static ring::digest::Algorithm) -> io::Result<ring::digest::Digest> {
    let (mut context, mut from) = (ring::digest::Context::new(algorithm), File::open(file)?);
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Ok(context.finish());
        }
        context.update(piece.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &Path, certificate: Option<&Path>) -> Result<(), Failure> {
        super::check(file, file, certificate)
    }

    #[test]
    fn a_container_is_taken_with_a_signature_that_goes_back_to_the_named_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scan").join(name);
        let (root, other) = (fixture("detached-root.pem"), fixture("detached-other.pem"));
        fs::write(at("test.cvd"), "a database to be signed\n").unwrap();
        let refusal = |certificate: &Path| check(&at("test.cvd"), Some(certificate)).unwrap_err().to_string();
        assert!(refusal(&root).contains("no detached signature beside it"));
        fs::copy(fixture("detached.sign"), at("test.cvd.sign")).unwrap();
        check(&at("test.cvd"), Some(&root)).unwrap();
        check(&at("test.cvd"), None).unwrap();
        assert!(refusal(&other).contains("vouches for it"));
        fs::write(at("test.cvd"), "a database to be signed.\n").unwrap();
        assert!(refusal(&root).contains("does not fit"));
        fs::write(at("test.cvd.sign"), "nothing").unwrap();
        assert!(refusal(&root).contains("can be read"));
        assert!(refusal(&at("test.cvd")).contains("no certificate in it"));
        // Other files have no such signatures.
        check(&at("test.ndb"), Some(&root)).unwrap();
    }
}
