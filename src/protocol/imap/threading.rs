//! Puts messages into threads (RFC 5256 section 3).
//!
//! [`Gatherer`] takes what matters of each message: hashes of its identifiers and subject, and its date.
//! From these [`Gatherer::threads`] makes the threads, as a list in the order THREAD tells them. What is
//! held of a message is some forty bytes, of one that is only referred to as well, and nothing of its
//! text. Two identifiers with one hash would join two threads; nothing worse.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::mail::mailbox::Uid;

use super::search::Threading;
use super::sorting::Subject;

/// Most messages that are looked through above another for a circle: a chain that is longer is cut, so
/// that none, however somebody makes it, costs more than its length.
pub const DEPTH_MAX: u32 = 256;

/// Most references of one message that count: the last ones, which are the nearest.
pub const REFERENCES_MAX: usize = 64;

/// One message of a thread, or a place where one is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twig {
    /// Its uid, or what the client calls it; zero where it is missing.
    pub number: u32,
    /// How many messages it is below the first of its thread.
    pub depth: u32,
    /// It begins a thread, or is one of several answers to one message.
    pub branches: bool,
}

impl Twig {
    /// The uid, as [`Gatherer::threads`] gives it.
    #[must_use]
    pub fn uid(&self) -> Option<Uid> {
        Uid::new(self.number)
    }
}

/// What THREAD must know of a message.
#[derive(Clone, Debug, Default)]
pub struct Facts<'m> {
    /// Message-ID, as it stands in the header.
    pub id: Option<&'m str>,
    /// References.
    pub references: Option<&'m str>,
    /// In-Reply-To.
    pub in_reply_to: Option<&'m str>,
    /// Subject, encoded words undone.
    pub subject: &'m str,
    /// When it was sent, in seconds since 1970.
    pub sent: i64,
}

/// No node.
const NONE: u32 = u32::MAX;

/// A message, or one that is only referred to.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Zero where the message is missing.
    uid: u32,
    parent: u32,
    /// Of the base subject; zero for none.
    subject: u64,
    sent: i64,
    /// The subject says that it is an answer.
    answers: bool,
}

/// Gathers messages.
#[derive(Debug)]
pub struct Gatherer {
    threading: Threading,
    nodes: Vec<Node>,
    /// Which node has this identifier.
    ids: HashMap<u64, u32>,
}

impl Gatherer {
    /// Gathers for this way to put them together.
    #[must_use]
    pub fn new(threading: Threading) -> Self {
        Self { threading, nodes: Vec::new(), ids: HashMap::new() }
    }

    /// Takes a message.
    pub fn take(&mut self, uid: Uid, facts: &Facts<'_>) {
        let subject = Subject::of(facts.subject);
        let base = if subject.base.is_empty() { 0 } else { hash(&subject.base) };
        let node = Node { uid: uid.get(), parent: NONE, subject: base, sent: facts.sent, answers: subject.answers };
        if self.threading == Threading::OrderedSubject {
            self.nodes.push(node);
            return;
        }
        let id = facts.id.and_then(|text| identifiers(text).next()).map(hash);
        // A second message of the same identifier is one without (RFC 5256 section 3, step 1).
        let known = id.and_then(|id| self.ids.get(&id).copied());
        let free = known.filter(|index| self.node(*index).is_some_and(|node| node.uid == 0));
        let index = if let Some(index) = free {
            if let Some(found) = self.node_mut(index) {
                *found = Node { parent: found.parent, ..node };
            }
            index
        } else {
            let index = self.add(node);
            if let Some(id) = id.filter(|_| known.is_none()) {
                self.ids.insert(id, index);
            }
            index
        };
        let parents = self.parents(facts);
        for pair in parents.windows(2) {
            if let &[parent, child] = pair
                && self.node(child).is_some_and(|node| node.parent == NONE)
            {
                self.link(parent, child);
            }
        }
        // The message itself says best what it answers.
        if let Some(parent) = parents.last() {
            self.link(*parent, index);
        }
    }

    /// The messages this one refers to, the nearest last.
    fn parents(&mut self, facts: &Facts<'_>) -> Vec<u32> {
        let mut names: Vec<u64> = facts.references.into_iter().flat_map(identifiers).map(hash).collect();
        if names.is_empty() {
            names.extend(facts.in_reply_to.and_then(|text| identifiers(text).next()).map(hash));
        }
        let names = names.get(names.len().saturating_sub(REFERENCES_MAX)..).unwrap_or_default();
        names.iter().map(|name| self.named(*name)).collect()
    }

    /// The node of an identifier, made if it has none yet.
    fn named(&mut self, id: u64) -> u32 {
        if let Some(index) = self.ids.get(&id) {
            return *index;
        }
        let index = self.add(Node { uid: 0, parent: NONE, subject: 0, sent: 0, answers: false });
        self.ids.insert(id, index);
        index
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }

    fn node_mut(&mut self, index: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(index).ok()?)
    }

    /// Puts `child` below `parent`, unless that would make a circle or too deep a thread.
    fn link(&mut self, parent: u32, child: u32) {
        let mut above = parent;
        for _ in 0..DEPTH_MAX {
            if above == child {
                return;
            }
            match self.node(above).map(|node| node.parent) {
                None | Some(NONE) => {
                    if let Some(node) = self.node_mut(child) {
                        node.parent = parent;
                    }
                    return;
                }
                Some(next) => above = next,
            }
        }
    }

    /// The threads in the order they are told, each message before its answers.
    #[must_use]
    pub fn threads(mut self) -> Vec<Twig> {
        self.ids = HashMap::new();
        match self.threading {
            Threading::OrderedSubject => by_subject(self.nodes),
            Threading::References | Threading::Refs => Forest::new(self.nodes).threads(self.threading),
        }
    }
}

/// ORDEREDSUBJECT: all of one subject are answers to the first.
fn by_subject(mut nodes: Vec<Node>) -> Vec<Twig> {
    nodes.sort_unstable_by_key(|node| (node.subject, node.sent, node.uid));
    // From here on `parent` is the first message of the subject, and `subject` its date.
    let mut first = None;
    for node in &mut nodes {
        let (subject, uid, sent) = match first {
            Some((subject, uid, sent)) if subject == node.subject => (subject, uid, sent),
            _ => (node.subject, node.uid, node.sent),
        };
        first = Some((subject, uid, sent));
        node.parent = uid;
        node.subject = sent.cast_unsigned() ^ (1 << 63);
    }
    nodes.sort_unstable_by_key(|node| (node.subject, node.parent, node.sent, node.uid));
    let answers = |at: usize| {
        let same =
            |node: Option<&Node>| node.is_some_and(|node| Some(node.parent) == nodes.get(at).map(|node| node.parent));
        (same(nodes.get(at + 1)), at > 0 && same(nodes.get(at - 1)))
    };
    let twig = |(at, node): (usize, &Node)| {
        let root = node.uid == node.parent;
        let (after, before) = answers(at);
        // A single answer needs no parentheses.
        let single =
            !after && at.checked_sub(1).and_then(|at| nodes.get(at)).is_some_and(|node| node.uid == node.parent);
        Twig { number: node.uid, depth: u32::from(!root), branches: root || !(before && single) }
    };
    nodes.iter().enumerate().map(twig).collect()
}

/// Messages below messages.
struct Forest {
    nodes: Vec<Node>,
    /// The first below each.
    below: Vec<u32>,
    /// The next with the same parent.
    next: Vec<u32>,
    roots: Vec<u32>,
}

impl Forest {
    fn new(nodes: Vec<Node>) -> Self {
        let mut forest = Self { nodes, below: Vec::new(), next: Vec::new(), roots: Vec::new() };
        forest.prune();
        forest.date_missing();
        forest
    }

    fn get(&self, index: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(NONE)
    }

    fn set_parent(&mut self, index: u32, parent: u32) {
        set(&mut self.nodes, index, |node| node.parent = parent);
    }

    /// Every node, each before those below it.
    fn preorder(&self) -> Vec<u32> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut waiting = self.roots.clone();
        while let Some(index) = waiting.pop() {
            order.push(index);
            waiting.extend(self.children(index));
        }
        order
    }

    /// Takes missing messages out, except where they hold several threads together (step 3): who is
    /// below one belongs to the nearest above that stays.
    fn prune(&mut self) {
        self.adopt();
        let order = self.preorder();
        let missing = |forest: &Self, index| forest.get(index).is_some_and(|node| node.uid == 0);
        // How many messages would be directly below where the missing ones between are gone.
        let mut holds = vec![0_u32; self.nodes.len()];
        for index in order.iter().rev() {
            let parent = self.get(*index).map_or(NONE, |node| node.parent);
            let more = if missing(self, *index) { at(&holds, *index).unwrap_or(0) } else { 1 };
            set(&mut holds, parent, |count| *count = count.saturating_add(more));
        }
        let mut anchors = vec![NONE; self.nodes.len()];
        for index in order {
            let parent = self.get(index).map_or(NONE, |node| node.parent);
            let above = at(&anchors, parent).unwrap_or(NONE);
            let stays = !missing(self, index) || (parent == NONE && at(&holds, index).is_some_and(|count| count > 1));
            set(&mut anchors, index, |anchor| *anchor = if stays { index } else { above });
            self.set_parent(index, if stays { above } else { GONE });
        }
        self.adopt();
    }

    /// Whose parent is which, anew from the nodes. Missing messages that hold nothing are nowhere.
    fn adopt(&mut self) {
        let count = self.nodes.len();
        self.below = vec![NONE; count];
        self.next = vec![NONE; count];
        self.roots = Vec::new();
        for index in (0..self.count()).rev() {
            let Some(node) = self.get(index).copied() else { continue };
            if node.parent == GONE {
                continue;
            }
            self.enter(index, node.parent);
        }
    }

    /// Puts a node among the children of another.
    fn enter(&mut self, index: u32, parent: u32) {
        if parent == NONE {
            self.roots.push(index);
            return;
        }
        let mut first = NONE;
        set(&mut self.below, parent, |below| first = std::mem::replace(below, index));
        set(&mut self.next, index, |next| *next = first);
    }

    fn children(&self, index: u32) -> Vec<u32> {
        std::iter::successors(at(&self.below, index), |child| at(&self.next, *child))
            .take_while(|child| *child != NONE)
            .collect()
    }

    /// A missing message has the date, and the subject, of its first answer (step 4).
    fn date_missing(&mut self) {
        for index in 0..self.count() {
            if self.get(index).is_none_or(|node| node.uid != 0 || node.parent == GONE) {
                continue;
            }
            let first = self
                .children(index)
                .into_iter()
                .filter_map(|child| self.get(child))
                .min_by_key(|node| (node.sent, node.uid));
            let Some(first) = first.copied() else { continue };
            set(&mut self.nodes, index, |node| {
                (node.sent, node.subject, node.answers) = (first.sent, first.subject, first.answers);
            });
        }
    }

    /// Joins threads of one subject (step 5).
    fn join_subjects(&mut self) {
        self.sort_roots();
        let mut heads: HashMap<u64, u32> = HashMap::new();
        for root in &self.roots {
            let Some(node) = self.get(*root).filter(|node| node.subject != 0) else { continue };
            let better = |known: &Node| known.uid != 0 && (node.uid == 0 || known.answers && !node.answers);
            match heads.get(&node.subject).and_then(|known| self.get(*known)) {
                Some(known) if !better(known) => {}
                _ => drop(heads.insert(node.subject, *root)),
            }
        }
        let roots = std::mem::take(&mut self.roots);
        let mut kept = Vec::with_capacity(roots.len());
        // Where the head of a subject is among those kept, once it was come to.
        let mut places: HashMap<u64, usize> = HashMap::new();
        for root in roots {
            let Some(node) = self.get(root).copied() else { continue };
            let target = heads.get(&node.subject).copied().filter(|target| node.subject != 0 && *target != root);
            let Some((target, head)) = target.and_then(|target| Some((target, *self.get(target)?))) else {
                places.insert(node.subject, kept.len());
                kept.push(root);
                continue;
            };
            if head.uid == 0 && node.uid == 0 {
                for child in self.children(root) {
                    self.move_below(child, target);
                }
                self.set_parent(root, GONE);
            } else if head.uid == 0 || (!head.answers && node.answers) {
                self.move_below(root, target);
            } else {
                // Neither is an answer to the other: both go below a message that is missing.
                let missing = self.count();
                self.nodes.push(Node { uid: 0, parent: NONE, answers: false, ..head });
                self.below.push(NONE);
                self.next.push(NONE);
                self.move_below(target, missing);
                self.move_below(root, missing);
                if let Some(place) = places.get(&node.subject).and_then(|place| kept.get_mut(*place)) {
                    *place = missing;
                }
                heads.insert(node.subject, missing);
            }
        }
        self.roots = kept;
    }

    fn move_below(&mut self, index: u32, parent: u32) {
        self.set_parent(index, parent);
        self.enter(index, parent);
    }

    fn sort_roots(&mut self) {
        let mut roots = std::mem::take(&mut self.roots);
        roots.sort_by_key(|root| self.get(*root).map(|node| (node.sent, node.uid)));
        self.roots = roots;
    }

    fn threads(mut self, threading: Threading) -> Vec<Twig> {
        if threading == Threading::References {
            self.join_subjects();
            self.date_missing();
            self.sort_roots();
        } else {
            self.sort_by_latest();
        }
        let mut twigs = Vec::with_capacity(self.nodes.len());
        let mut waiting: Vec<(u32, u32, bool)> = self.roots.iter().rev().map(|root| (*root, 0, true)).collect();
        while let Some((index, depth, branches)) = waiting.pop() {
            let Some(node) = self.get(index) else { continue };
            twigs.push(Twig { number: node.uid, depth, branches });
            let mut children = self.children(index);
            children.sort_by_key(|child| self.get(*child).map(|node| (node.sent, node.uid)));
            let several = children.len() > 1;
            waiting.extend(children.into_iter().rev().map(|child| (child, depth + 1, several)));
        }
        twigs
    }

    /// REFS: the thread that was last written to comes last.
    fn sort_by_latest(&mut self) {
        let latest = |root: u32| {
            let (mut latest, mut waiting) = (i64::MIN, vec![root]);
            while let Some(index) = waiting.pop() {
                latest = latest.max(self.get(index).map_or(i64::MIN, |node| node.sent));
                waiting.extend(self.children(index));
            }
            (latest, self.get(root).map(|node| node.uid))
        };
        let mut roots = self.roots.clone();
        roots.sort_by_cached_key(|root| latest(*root));
        self.roots = roots;
    }
}

/// One of a list by its number.
fn at(list: &[u32], index: u32) -> Option<u32> {
    usize::try_from(index).ok().and_then(|index| list.get(index)).copied()
}

/// Changes one of a list.
fn set<T>(list: &mut [T], index: u32, change: impl FnOnce(&mut T)) {
    if let Some(item) = usize::try_from(index).ok().and_then(|index| list.get_mut(index)) {
        change(item);
    }
}

/// The parent of a node that is in no thread.
const GONE: u32 = u32::MAX - 1;

fn hash(text: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish().max(1)
}

/// The identifiers in a field: what stands in angle brackets, without white space.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(id, _)| id.trim()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests;
