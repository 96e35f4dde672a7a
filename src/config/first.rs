//! `pillarbox-setup.toml`: what somebody writes on a laptop before a card's first start.
//!
//! Reading it is pure: [`FirstSetup::parse`] gives what is asked for or one sentence about what is wrong, and
//! [`FirstSetup::config`] the text of the `pillarbox.toml` that follows. `cli/setup.rs` does what it says.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::{ConfigError, Settings};
use crate::mail::address::{Address, Domain};

/// The file as it lies on a fresh card: all of it commented out.
pub const TEMPLATE: &str = include_str!("../../image/pillarbox-setup.toml");

/// Longest file that is read, in bytes; the one that comes with a card has a fifteenth of it.
pub const FILE_MAX: u64 = 64 << 10;

/// Shortest password that is taken, in characters.
const PASSWORD_MIN: usize = 8;

/// Longest name of a Wi-Fi network in bytes (IEEE 802.11).
const WIFI_NAME_MAX: usize = 32;

/// What the file asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirstSetup {
    /// What the server calls itself.
    pub hostname: Option<String>,
    /// A domain whose mail stays here.
    pub domain: Option<String>,
    /// An account to add, or to give a new password.
    pub account: Option<FirstAccount>,
    /// The Wi-Fi network to join.
    pub wifi: Option<Wifi>,
    /// Settings of `pillarbox.toml`.
    pub settings: Option<toml::Table>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirstAccount {
    /// Its address, which is its login too.
    pub address: String,
    /// Its password; one is made up without it.
    pub password: Option<String>,
}

/// A Wi-Fi network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wifi {
    /// Its name (SSID).
    pub name: String,
    /// Its password; an open network without it.
    pub password: Option<String>,
    /// The country whose radio rules apply, two letters.
    pub country: Option<String>,
}

/// Where a box has its things.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The data folder.
    pub data: &'a Path,
    /// The mount point the data folder is on.
    pub mount: &'a Path,
    /// The user the server becomes.
    pub user: &'a str,
}

impl FirstSetup {
    /// Reads and checks the text of a file; `path` names it in errors.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let setup: Self = toml::from_str(text).map_err(|error| ConfigError::from_toml(path, text, &error))?;
        setup.check().map_err(|(key, problem)| ConfigError::from_check(path, text, key, &problem))?;
        Ok(setup)
    }

    /// Tells whether nothing is asked for: the file is as it came.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(name) = self.hostname.as_deref().filter(|name| !super::is_host_name(name)) {
            return Err(("hostname", format!("`{name}` is no host name")));
        }
        if let Some(name) = self.domain.as_deref().filter(|name| Domain::parse(name).is_err()) {
            return Err(("domain", format!("`{name}` is no domain")));
        }
        if let Some(FirstAccount { address, password }) = &self.account {
            if Address::parse(address).is_err() {
                return Err((
                    "account.address",
                    format!("`{address}` is no address; write one such as ann@example.org"),
                ));
            }
            if password.as_ref().is_some_and(|password| password.chars().count() < PASSWORD_MIN) {
                return Err(("account.password", format!("has less than {PASSWORD_MIN} letters")));
            }
        }
        if let Some(Wifi { name, password, country }) = &self.wifi {
            if name.is_empty() || name.len() > WIFI_NAME_MAX {
                return Err(("wifi.name", format!("is no name of a network; it has 1 to {WIFI_NAME_MAX} bytes")));
            }
            let good = |text: &String| {
                (8..=63).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            };
            if password.as_ref().is_some_and(|password| !good(password)) {
                return Err(("wifi.password", "has 8 to 63 letters, digits and signs, none with an accent".to_owned()));
            }
            let two = |text: &String| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
            if country.as_ref().is_some_and(|country| !two(country)) {
                return Err(("wifi.country", "is two capital letters, such as DE or KE".to_owned()));
            }
        }
        Ok(())
    }

    /// The text of the `pillarbox.toml` that follows from this, laid over `before`, the one there is.
    ///
    /// # Errors
    /// One sentence: a setting is wrong.
    pub fn config(&self, before: Option<&str>, place: Place<'_>) -> Result<String, ConfigError> {
        let path = Path::new("[settings] of pillarbox-setup.toml");
        let mut table: toml::Table = before.and_then(|text| toml::from_str(text).ok()).unwrap_or_default();
        if let Some(settings) = &self.settings {
            lay_over(&mut table, settings);
        }
        let text_of = |path: &Path| toml::Value::String(path.display().to_string());
        table.insert("data".to_owned(), text_of(place.data));
        table.insert("user".to_owned(), toml::Value::String(place.user.to_owned()));
        if let Some(name) = &self.hostname {
            table.insert("hostname".to_owned(), toml::Value::String(name.clone()));
        } else {
            table.entry("hostname").or_insert_with(|| toml::Value::String("pillarbox.local".to_owned()));
        }
        let store = table.entry("store").or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let Some(store) = store.as_table_mut() {
            store.insert("require-mount".to_owned(), text_of(place.mount));
        }
        let text = toml::to_string(&table).map_err(|error| ConfigError::plain(path, &error.to_string()))?;
        Settings::parse(&text, path)?;
        Ok(text)
    }
}

/// Puts `over` into `table`, section by section.
fn lay_over(table: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Wifi {
    /// The text of a `wpa_supplicant.conf`.
    pub fn supplicant(&self) -> String {
        let country = self.country.as_ref().map(|country| format!("country={country}\n")).unwrap_or_default();
        // A name in hexadecimal needs no quoting, whatever is in it.
        let name = self.name.bytes().fold(String::new(), |mut name, byte| {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
            name
        });
        let key = match &self.password {
            Some(password) => format!("key_mgmt=WPA-PSK SAE\n  ieee80211w=1\n  psk=\"{password}\""),
            None => "key_mgmt=NONE".to_owned(),
        };
        format!("{country}network={{\n  ssid={name}\n  scan_ssid=1\n  {key}\n}}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: fn() -> Place<'static> =
        || Place { data: Path::new("/data/mail"), mount: Path::new("/data"), user: "pillarbox" };

    fn parse(text: &str) -> Result<FirstSetup, String> {
        FirstSetup::parse(text, Path::new("pillarbox-setup.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_of_a_fresh_card_asks_for_nothing() {
        assert!(parse(TEMPLATE).unwrap().is_empty());
    }

    #[test]
    fn the_file_of_a_fresh_card_is_good_when_all_of_it_is_taken() {
        let lines: Vec<&str> = TEMPLATE.lines().filter_map(|line| line.strip_prefix("# ")).collect();
        let taken: Vec<&str> = lines.into_iter().filter(|line| line.starts_with('[') || line.contains(" = ")).collect();
        let setup = parse(&taken.join("\n")).unwrap();
        assert_eq!(setup.account.as_ref().unwrap().address, "ann@example.org");
        let config = setup.config(None, PLACE()).unwrap();
        assert!(config.contains("sessions-max = 50") && config.contains("require-mount = \"/data\""), "{config}");
        assert!(config.contains("hostname = \"mail.example.org\""), "{config}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(
            parse("[account]\naddress = \"ann\"\n").unwrap_err(),
            "pillarbox-setup.toml line 2: `address` in [account]: `ann` is no address; write one such as ann@example.org"
        );
        assert_eq!(
            parse("hostnam = \"x.org\"\n").unwrap_err(),
            "pillarbox-setup.toml line 1: there is no section or setting `hostnam`; did you mean `hostname`?"
        );
        assert!(parse("[wifi]\nname = \"x\"\npassword = \"short\"\n").unwrap_err().contains("8 to 63"));
        assert!(parse("hostname = \"a b\"\n").unwrap_err().contains("`a b` is no host name"));
        assert!(
            parse("[account]\naddress = \"ann@x.org\"\npassword = \"short\"\n").unwrap_err().contains("less than 8")
        );
    }

    #[test]
    fn what_a_later_file_does_not_name_stays() {
        let first = parse("hostname = \"mail.x.org\"\n[settings.net]\nsessions-max = 50\n").unwrap();
        let before = first.config(None, PLACE()).unwrap();
        let second = parse("[settings.net]\nsessions-per-address-max = 5\n").unwrap();
        let after = second.config(Some(&before), PLACE()).unwrap();
        assert!(after.contains("hostname = \"mail.x.org\"") && after.contains("sessions-max = 50"), "{after}");
        assert!(after.contains("sessions-per-address-max = 5"), "{after}");
    }

    #[test]
    fn a_wrong_setting_changes_nothing_and_is_named() {
        let setup = parse("[settings.net]\nsesions-max = 50\n").unwrap();
        let error = setup.config(None, PLACE()).unwrap_err().to_string();
        assert!(error.contains("[settings]") && error.contains("did you mean `sessions-max`?"), "{error}");
    }

    #[test]
    fn a_network_s_name_cannot_break_out_of_its_place() {
        let wifi = Wifi { name: "a\"}\nx".into(), password: Some("pass word".into()), country: Some("KE".into()) };
        let text = wifi.supplicant();
        assert!(text.starts_with("country=KE\n") && text.contains("ssid=61227d0a78\n"), "{text}");
        assert!(text.contains("psk=\"pass word\""), "{text}");
    }
}
