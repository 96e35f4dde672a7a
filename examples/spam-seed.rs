//! Makes the seed of the spam filter: weights of features that mean the same in anyone's mail.
//!
//! `cargo run --release --example spam-seed -- CORPUS... --to FILE`: folders as `spam-bench` takes
//! them. Logistic regression over all messages at once, in [`PASSES`] passes whose weights are
//! averaged; both classes weigh the same, features of few messages are left out. Where there are two
//! corpora or more, each is also judged by what the others alone teach, and the line between ham and
//! spam is laid where that loses one ham in a hundred. The same corpora give the same file.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use pillarbox::filter::spam::{Features, Seed};

/// Times that all messages are gone through.
const PASSES: u16 = 10;

/// How far a message moves the weights.
const RATE: f32 = 2.0;

/// What a weight loses at each message that has its feature: what few messages say stays small.
const DECAY: f32 = 0.0001;

/// A feature of fewer messages says more about them than about spam.
const MESSAGES_MIN: u32 = 20;

/// What more than this share of all messages has tells nothing.
const SHARE_MAX: f32 = 0.5;

/// A large prime: messages are gone through in steps of it, so that neighbours are far apart.
const STRIDE: usize = 7919;

/// Makes the seed of the spam filter.
#[derive(Debug, Parser)]
struct Args {
    /// Folders with a file `index`: a line for each message, `spam` or `ham` and its path
    #[arg(required = true)]
    corpora: Vec<PathBuf>,
    /// Where to write the seed
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Most weights
    #[arg(long, default_value_t = 40_000)]
    weights: usize,
}

struct Message {
    is_spam: bool,
    features: Features,
}

fn main() -> ExitCode {
    match make(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spam-seed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<(), String> {
    let corpora = args.corpora.iter().map(|folder| read(folder)).collect::<Result<Vec<_>, _>>()?;
    let mut bias = 0.0;
    if corpora.len() > 1 {
        let lines: Vec<f32> = (0..corpora.len())
            .filter_map(|held| {
                let others = corpora.iter().enumerate().filter(|(number, _)| *number != held);
                let others: Vec<&Message> = others.flat_map(|(_, corpus)| corpus).collect();
                let seed = Seed::of(train(&others, args.weights), 0.0);
                let mut scores: Vec<f32> = corpora
                    .get(held)?
                    .iter()
                    .filter(|message| !message.is_spam)
                    .map(|message| seed.score(&message.features, 0))
                    .collect();
                scores.sort_by(f32::total_cmp);
                scores.get(scores.len().saturating_sub(1 + scores.len() / 100)).copied()
            })
            .collect();
        bias = -lines.iter().sum::<f32>() / lines.len().max(1) as f32;
    }
    let all: Vec<&Message> = corpora.iter().flatten().collect();
    let seed = Seed::of(train(&all, args.weights), bias);
    let file = seed.write().map_err(|error| error.to_string())?;
    std::fs::write(&args.to, &file).map_err(|error| format!("{}: {error}", args.to.display()))?;
    println!("{} messages, {} weights, bias {bias:.2}, {} KiB", all.len(), seed.weights(), file.len() >> 10);
    Ok(())
}

/// The messages of a corpus.
fn read(folder: &Path) -> Result<Vec<Message>, String> {
    let said = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let index = folder.join("index");
    let text = std::fs::read_to_string(&index).map_err(|error| said(&index, &error))?;
    let message = |line: &str| {
        let (class, name) = line.split_once(' ').ok_or_else(|| said(&index, &line))?;
        let path = folder.join(name.trim());
        let bytes = std::fs::read(&path).map_err(|error| said(&path, &error))?;
        Ok(Message { is_spam: class == "spam", features: Features::general(&bytes) })
    };
    text.lines().map(message).collect()
}

/// The strongest weights, by hash.
fn train(messages: &[&Message], most: usize) -> Vec<(u32, f32)> {
    let mut known: HashMap<u32, u32> = HashMap::new();
    for hash in messages.iter().flat_map(|message| message.features.hashes()) {
        *known.entry(*hash).or_default() += 1;
    }
    known.retain(|_, count| *count >= MESSAGES_MIN && *count as f32 <= messages.len() as f32 * SHARE_MAX);
    let mut hashes: Vec<u32> = known.into_keys().collect();
    hashes.sort_unstable();
    let places = |message: &Message| -> Vec<usize> {
        message.features.hashes().iter().filter_map(|hash| hashes.binary_search(hash).ok()).collect()
    };
    let features: Vec<Vec<usize>> = messages.iter().map(|message| places(message)).collect();
    let spam = messages.iter().filter(|message| message.is_spam).count();
    let balance = |is_spam: bool| {
        let of_class = if is_spam { spam } else { messages.len() - spam };
        messages.len() as f32 / 2.0 / of_class.max(1) as f32
    };
    let (mut weights, mut sums) = (vec![0.0_f32; hashes.len()], vec![0.0_f32; hashes.len()]);
    for _ in 0..PASSES {
        for turn in 0..messages.len() {
            let number = turn * STRIDE % messages.len();
            let (Some(message), Some(places)) = (messages.get(number), features.get(number)) else { continue };
            let scale = (places.len().max(1) as f32).sqrt().recip();
            let score = places.iter().filter_map(|place| weights.get(*place)).sum::<f32>() * scale;
            let towards = if message.is_spam { 1.0 } else { -1.0 };
            let off = balance(message.is_spam) / (1.0 + (score * towards).exp());
            for place in places {
                if let Some(weight) = weights.get_mut(*place) {
                    *weight += RATE * off * towards * scale - DECAY * *weight;
                }
            }
        }
        for (sum, weight) in sums.iter_mut().zip(&weights) {
            *sum += weight / f32::from(PASSES);
        }
    }
    let mut found: Vec<(u32, f32)> = hashes.into_iter().zip(sums).collect();
    found.sort_by(|(one_hash, one), (other_hash, other)| {
        other.abs().total_cmp(&one.abs()).then(one_hash.cmp(other_hash))
    });
    found.truncate(most);
    found
}
