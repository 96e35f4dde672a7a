//! `pillarbox list`: addresses whose mail goes to all members.

use std::io::{self, Write};

use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, list_all, unexpected};
use super::show;
use crate::daemon::control::{ListChange, Order, Outcome};
use crate::mail::address::Address;
use crate::mail::list::{Answers, List, Posting};

/// Mailing lists: add them, change them, and see their members
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: ListCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum ListCommand {
    /// Make a list; its domain must be local
    Add {
        /// Its address
        address: String,
        /// Who gets failures, wishes to leave and questions; may be given more than once
        #[arg(long, value_name = "ADDRESS", required = true)]
        owner: Vec<String>,
        /// Its members
        members: Vec<String>,
        #[command(flatten)]
        settings: ListSettings,
    },
    /// Change a list's settings
    Set {
        /// Its address
        address: String,
        /// Who gets failures, wishes to leave and questions: replaces all of them
        #[arg(long, value_name = "ADDRESS")]
        owner: Vec<String>,
        #[command(flatten)]
        settings: ListSettings,
    },
    /// Add members
    Join {
        /// The list
        address: String,
        /// Who comes
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Take members out
    Leave {
        /// The list
        address: String,
        /// Who goes
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Show a list with its members
    Show {
        /// Its address
        address: String,
    },
    /// List the lists
    List,
    /// Remove a list
    Remove {
        /// Its address
        address: String,
    },
}

/// What a list is set to.
#[derive(Clone, Debug, Default, clap::Args)]
struct ListSettings {
    /// What it is called, in plain ASCII
    #[arg(long)]
    title: Option<String>,
    /// Who may write: `members`, `anyone`, or addresses with commas between (owners always may)
    #[arg(long, value_name = "WHO", value_parser = posting)]
    post: Option<Posting>,
    /// Where answers go: `author` or `list`
    #[arg(long, value_name = "WHERE", value_parser = answers)]
    answers: Option<Answers>,
}

fn posting(text: &str) -> Result<Posting, String> {
    match text {
        "members" => Ok(Posting::Members),
        "anyone" => Ok(Posting::Anyone),
        named => named
            .split(',')
            .map(|one| address(one).map_err(|error| error.0))
            .collect::<Result<_, _>>()
            .map(Posting::Named),
    }
}

fn answers(text: &str) -> Result<Answers, String> {
    match text {
        "author" => Ok(Answers::Author),
        "list" => Ok(Answers::List),
        _ => Err("answers go to `author` or `list`".into()),
    }
}

fn address(text: &str) -> Result<Address, Failure> {
    Address::parse(text.trim()).map_err(|error| Failure(format!("`{text}` does not do: {error}")))
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: ListArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    obey(args.command, &mut office, args.office.json, &mut io::stdout().lock())
}

fn obey(command: ListCommand, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (address, change, said) = match command {
        ListCommand::Add { address: given, owner, members, settings } => {
            let all = |given: Vec<String>| given.iter().map(|one| address(one)).collect::<Result<Vec<_>, _>>();
            let list = List {
                address: address(&given)?,
                title: settings.title.unwrap_or_default(),
                owners: all(owner)?,
                members: all(members)?,
                posting: settings.post.unwrap_or_default(),
                answers: settings.answers.unwrap_or_default(),
            };
            let count = list.members.len();
            done(office, Order::AddList { list: Box::new(list) })?;
            if json {
                show::json(out, &json!({ "added": given, "members": count }))?;
            } else {
                writeln!(out, "added {given} with {count} members")?;
            }
            return Ok(());
        }
        ListCommand::Set { address, owner, settings } => {
            let ListSettings { title, post: posting, answers } = settings;
            let owners = Some(owner).filter(|owner| !owner.is_empty());
            (address, ListChange { title, owners, posting, answers, ..ListChange::default() }, "changed")
        }
        ListCommand::Join { address, members } => {
            (address, ListChange { add: members, ..ListChange::default() }, "joined")
        }
        ListCommand::Leave { address, members } => {
            (address, ListChange { remove: members, ..ListChange::default() }, "left")
        }
        ListCommand::Show { address } => return show(office, address, json, out),
        ListCommand::List => {
            let lists_of = |outcome| if let Outcome::Lists { lists } = outcome { Some(lists) } else { None };
            let rows = list_all(office, |skip| Order::ListLists { skip }, lists_of)?;
            if json {
                show::json(out, &rows)?;
            } else {
                let mut table = vec![["LIST", "MEMBERS", "TITLE"].map(str::to_owned)];
                table.extend(rows.into_iter().map(|row| [row.address, row.members.to_string(), row.title]));
                show::table(out, &table)?;
            }
            return Ok(());
        }
        ListCommand::Remove { address } => {
            done(office, Order::RemoveList { address: address.clone() })?;
            return told(out, json, "removed", &address);
        }
    };
    done(office, Order::ChangeList { address: address.clone(), change: Box::new(change) })?;
    told(out, json, said, &address)
}

fn told(out: &mut impl Write, json: bool, what: &str, address: &str) -> Result<(), Failure> {
    if json {
        show::json(out, &json!({ what: address }))?;
    } else {
        writeln!(out, "{what} {address}")?;
    }
    Ok(())
}

fn show(office: &mut impl Office, address: String, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let Outcome::List { list } = office.give(Order::ShowList { address })? else { return Err(unexpected()) };
    if json {
        let named = |all: &[Address]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let posting = match &list.posting {
            Posting::Members => json!("members"),
            Posting::Anyone => json!("anyone"),
            Posting::Named(all) => json!(named(all)),
        };
        return Ok(show::json(
            out,
            &json!({
                "address": list.address.to_string(), "title": list.title, "owners": named(&list.owners),
                "members": named(&list.members), "post": posting, "answers": list.answers,
            }),
        )?);
    }
    let joined = |all: &[Address]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    writeln!(out, "{}  {}", list.address, list.title)?;
    writeln!(out, "owners: {}", joined(&list.owners))?;
    let posting = match &list.posting {
        Posting::Members => "members".to_owned(),
        Posting::Anyone => "anyone".to_owned(),
        Posting::Named(all) => joined(all),
    };
    writeln!(out, "may write: {posting}")?;
    writeln!(out, "answers go to the {}", if list.answers == Answers::List { "list" } else { "author" })?;
    writeln!(out, "members: {}", list.members.len())?;
    for member in &list.members {
        writeln!(out, "  {member}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;

    #[test]
    fn a_list_is_made_with_its_settings() {
        let (mut office, mut out) = (Script::new([Outcome::Done]), Vec::new());
        let add = ListCommand::Add {
            address: "crew@ship.test".into(),
            owner: vec!["ann@ship.test".into()],
            members: vec!["bob@ship.test".into()],
            settings: ListSettings {
                title: None,
                post: Some(posting("eve@x.test, ann@x.test").unwrap()),
                answers: None,
            },
        };
        obey(add, &mut office, false, &mut out).unwrap();
        let Order::AddList { list } = &office.given[0] else { panic!() };
        assert!(matches!(&list.posting, Posting::Named(named) if named.len() == 2));
        assert_eq!(String::from_utf8(out).unwrap(), "added crew@ship.test with 1 members\n");
        let line = serde_json::to_string(&office.given[0]).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), office.given[0]);
        assert!(posting("nobody").is_err() && answers("all").is_err());
    }

    #[test]
    fn a_list_is_shown_with_its_members() {
        let list = crate::mail::list::tests::list();
        let (mut office, mut out) = (Script::new([Outcome::List { list: Box::new(list) }]), Vec::new());
        obey(ListCommand::Show { address: "crew@ship.test".into() }, &mut office, false, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("members: 2\n  bob@ship.test\n  Cas@shore.test\n"), "{said}");
    }
}
