//! The file from which mail programs set themselves up: Mozilla's `config-v1.1.xml`, which others read too.

use std::fmt::Write as _;

use super::Host;

/// Spells the file for a domain. Services without TLS from the start are offered with STARTTLS.
pub fn autoconfig(domain: &str, host: &Host) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  \
         <emailProvider id=\"{domain}\">\n    <domain>{domain}</domain>\n    \
         <displayName>{domain}</displayName>\n    <displayShortName>{domain}</displayShortName>\n"
    );
    for (service, tag, kind, socket) in [
        ("imaps", "incomingServer", "imap", "SSL"),
        ("imap", "incomingServer", "imap", "STARTTLS"),
        ("pop3s", "incomingServer", "pop3", "SSL"),
        ("pop3", "incomingServer", "pop3", "STARTTLS"),
        ("submissions", "outgoingServer", "smtp", "SSL"),
        ("submission", "outgoingServer", "smtp", "STARTTLS"),
    ] {
        let Some((_, port)) = host.services.iter().find(|(name, _)| name == service) else { continue };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "    <{tag} type=\"{kind}\">\n      <hostname>{}</hostname>\n      <port>{port}</port>\n      \
             <socketType>{socket}</socketType>\n      <authentication>password-cleartext</authentication>\n      \
             <username>%EMAILADDRESS%</username>\n    </{tag}>\n",
            host.name
        );
    }
    out + "  </emailProvider>\n</clientConfig>\n"
}

#[cfg(test)]
mod tests {
    use super::super::tests::host;
    use super::*;

    #[test]
    fn the_services_that_are_there_are_named_with_tls() {
        let text = autoconfig("x.test", &host());
        assert_eq!(text.matches("<hostname>mail.x.test</hostname>").count(), 2);
        assert!(text.contains("<port>993</port>\n      <socketType>SSL</socketType>"), "{text}");
        assert!(!text.contains("pop3") && !text.contains("plain"), "{text}");
    }
}
