//! What control and the cores write and the path reads.

use crate::path::channel::{Channel, Handshake, Way};
use crate::path::transit::TransitRules;
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use ockam_engine_abi::{Guard, GuardSet, LinkId, PortalTarget, Target};
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

/// Who may reach what control set.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Which flow controls may, as a bit mask.
    pub reachable: u64,
    /// Whom of them it lets pass; all of them when absent.
    pub guard: Option<Guard>,
}

/// What is at a local address.
#[derive(Debug, Clone, Copy)]
pub enum Place<'t> {
    /// The sending side of a link.
    Link(LinkId),
    /// A connection of an application.
    Portal(LinkId),
    /// A relay of control's making: the way that it forwards along, or none if it forwards along the route.
    Relay {
        /// The way.
        way: Option<&'t Arc<Way>>,
        /// Which flow controls may reach it, as a bit mask.
        reachable: u64,
        /// As for [`Place::Set`].
        serial: u64,
    },
    /// What control put there.
    Set {
        /// What it is.
        target: Target,
        /// Who may reach it.
        access: Access,
        /// Which use of the address this is, so that what was admitted to an earlier one is not admitted to this.
        serial: u64,
    },
    /// The sending side of a channel.
    Encryptor(&'t Arc<Channel>),
    /// The receiving side of a channel.
    Decryptor {
        /// The channel.
        channel: &'t Arc<Channel>,
        /// Which flow controls may reach it, as a bit mask.
        reachable: u64,
        /// As for [`Place::Set`].
        serial: u64,
    },
}

impl Place<'_> {
    /// What stands for this place among the replies that a link admits.
    pub fn reply_key(self) -> ReplyKey {
        match self {
            Place::Link(link) | Place::Portal(link) => ReplyKey::Link(link),
            Place::Set { serial, .. } | Place::Relay { serial, .. } | Place::Decryptor { serial, .. } => {
                ReplyKey::Set(serial)
            }
            Place::Encryptor(channel) => channel.reply_key(),
        }
    }
}

/// A name of up to 32 bytes, as nearly all are, in words: compared and hashed without a call. A name that was decrypted
/// a moment ago is still on its way to memory, and loads that a library's comparison makes would wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    words: [u64; 4],
    length: u8,
}

impl Hash for Name {
    /// Word by word, without the length: names that differ in nothing but zeros at their ends may collide.
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.iter().for_each(|word| state.write_u64(*word));
    }
}

impl Name {
    /// The name, unless it is longer.
    #[inline(always)]
    pub fn of(name: &[u8]) -> Option<Name> {
        // Links, channels and connections have such names.
        if let Ok(name) = <&LinkAddress>::try_from(name) {
            let (words, _) = name.as_chunks();
            return Some(Name { words: std::array::from_fn(|place| u64::from_le_bytes(words[place])), length: 32 });
        }
        Name::of_shorter(name)
    }

    fn of_shorter(name: &[u8]) -> Option<Name> {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(name.chunks(8)) {
            *word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        (name.len() < 32).then_some(Name { words, length: name.len() as u8 })
    }
}

/// What is at a local address, as a core keeps it.
#[derive(Debug)]
enum Entry {
    Link(LinkId),
    Portal(LinkId),
    Relay { way: Option<Arc<Way>>, reachable: u64, serial: u64 },
    Target { target: Target, access: Access, serial: u64 },
    Encryptor(Arc<Channel>),
    Decryptor { channel: Arc<Channel>, reachable: u64, serial: u64 },
}

/// A place that a link may answer to, because something was sent over the link whose return route begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyKey {
    /// A link.
    Link(LinkId),
    /// What control set, by its serial number.
    Set(u64),
}

/// The names of a link: 16 random bytes in lower-case hexadecimal (`wire.md` A.4).
pub type LinkAddress = [u8; 32];

/// A socket that messages can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// A link: it takes frames.
    Link(LinkId),
    /// A connection of an application: it takes what the messages of its portal say.
    Portal(LinkId),
}

/// The connections of all cores by address. A core looks here only for what is not its own.
pub type Directory = RwLock<HashMap<LinkAddress, Connection>>;

/// An outlet: where new connections that come to its address go.
#[derive(Debug)]
pub struct Outlet {
    /// Its address.
    pub name: Box<[u8]>,
    /// Where to, the best first.
    pub targets: Vec<PortalTarget>,
    /// Whether peers that are not on loopback may reach it without a channel.
    pub plain: bool,
    /// Whom it lets pass, and for how long their connections live.
    pub guard: Option<Guard>,
    /// Stands for it, whatever its targets are.
    pub serial: u64,
    /// When control was last told that no target could be reached, in milliseconds of the clock.
    pub failed_ms: AtomicU64,
}

/// The addresses that one core knows.
#[derive(Debug)]
pub struct Tables {
    /// What has a name of up to 32 bytes.
    named: HashMap<Name, Entry>,
    /// What has a longer one.
    long: HashMap<Box<[u8]>, Entry>,
    /// See [`Tables::changes`].
    changes: u64,
    /// What came for channels that are being made, by their decryptor's name. All cores have the same.
    pub handshakes: HashMap<Box<[u8]>, Arc<Handshake>>,
    /// The outlets by address.
    pub outlets: HashMap<Box<[u8]>, Arc<Outlet>>,
    /// Connections of all cores.
    directory: Arc<Directory>,
    /// Whether another core may look for a connection of an application. Nobody else does.
    has_other_cores: bool,
    /// Guards that let everybody pass.
    pub open: GuardSet,
    /// Which TCP addresses are dialed for whom.
    pub transit: TransitRules,
}

impl Tables {
    /// No address but those of other cores' links, and no guard is open.
    pub fn new(directory: Arc<Directory>, has_other_cores: bool) -> Self {
        let transit = TransitRules::default();
        Tables {
            named: HashMap::new(),
            long: HashMap::new(),
            changes: 0,
            handshakes: HashMap::new(),
            outlets: HashMap::new(),
            directory,
            has_other_cores,
            open: GuardSet::NONE,
            transit,
        }
    }

    /// What has this address (transport type 0).
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Place<'_>> {
        self.find_as(Name::of(name), name)
    }

    /// The same for who has made a name in words of it.
    #[inline]
    pub fn find_as(&self, in_words: Option<Name>, name: &[u8]) -> Option<Place<'_>> {
        let entry = match in_words {
            Some(name) => self.named.get(&name),
            None => self.long.get(name),
        };
        match entry {
            Some(Entry::Link(link)) => Some(Place::Link(*link)),
            Some(Entry::Portal(link)) => Some(Place::Portal(*link)),
            Some(Entry::Relay { way, reachable, serial }) => {
                Some(Place::Relay { way: way.as_ref(), reachable: *reachable, serial: *serial })
            }
            Some(&Entry::Target { target, access, serial }) => Some(Place::Set { target, access, serial }),
            Some(Entry::Encryptor(channel)) => Some(Place::Encryptor(channel)),
            Some(Entry::Decryptor { channel, reachable, serial }) => {
                Some(Place::Decryptor { channel, reachable: *reachable, serial: *serial })
            }
            None => {
                let directory = self.directory.read().expect("no writer panics");
                match *directory.get::<LinkAddress>(name.try_into().ok()?)? {
                    Connection::Link(link) => Some(Place::Link(link)),
                    Connection::Portal(link) => Some(Place::Portal(link)),
                }
            }
        }
    }

    /// Whether a guard lets pass what comes from outside at `now_ms` of the clock: out of this channel, or over a link.
    #[inline]
    pub fn lets_pass(&self, guard: Guard, channel: Option<&Channel>, now_ms: u64) -> bool {
        channel.is_some_and(|channel| channel.granted.has(guard, now_ms)) || self.open.contains(guard)
    }

    /// While this stays the same, every address of this core leads where it did.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn put(&mut self, name: &[u8], entry: Entry) {
        self.changes += 1;
        match Name::of(name) {
            Some(name) => drop(self.named.insert(name, entry)),
            None => drop(self.long.insert(name.into(), entry)),
        }
    }

    fn take(&mut self, name: &[u8]) {
        self.changes += 1;
        match Name::of(name) {
            Some(name) => drop(self.named.remove(&name)),
            None => drop(self.long.remove(name)),
        }
    }

    /// A connection of this core is reachable by its address from all cores.
    pub fn add_connection(&mut self, address: LinkAddress, connection: Connection) {
        let entry = match connection {
            Connection::Link(link) => Entry::Link(link),
            Connection::Portal(link) => Entry::Portal(link),
        };
        self.put(&address, entry);
        if self.is_unlisted(connection) {
            return;
        }
        self.directory.write().expect("no writer panics").insert(address, connection);
    }

    /// A connection of this core is gone.
    pub fn remove_connection(&mut self, address: &LinkAddress, connection: Connection) {
        self.take(address);
        if self.is_unlisted(connection) {
            return;
        }
        self.directory.write().expect("no writer panics").remove(address);
    }

    /// Whether it is not in the directory: there may be very many of these.
    fn is_unlisted(&self, connection: Connection) -> bool {
        matches!(connection, Connection::Portal(_)) && !self.has_other_cores
    }

    /// Control set or replaced an address.
    pub fn set(&mut self, name: &[u8], target: Target, access: Access, serial: u64) {
        self.put(name, Entry::Target { target, access, serial });
    }

    /// Control set or replaced an outlet.
    pub fn set_outlet(&mut self, outlet: Arc<Outlet>, reachable: u64) {
        self.set(&outlet.name, Target::Outlet, Access { reachable, guard: outlet.guard }, outlet.serial);
        self.outlets.insert(outlet.name.clone(), outlet);
    }

    /// Control set or replaced a relay.
    pub fn set_relay(&mut self, name: &[u8], way: Option<Arc<Way>>, reachable: u64, serial: u64) {
        self.put(name, Entry::Relay { way, reachable, serial });
    }

    /// Control cleared an address. Gives what waited for it.
    pub fn clear(&mut self, name: &[u8]) -> Option<Arc<Handshake>> {
        self.take(name);
        self.outlets.remove(name);
        self.handshakes.remove(name)
    }

    /// A channel takes its two addresses. `serial` stands for the decryptor. Gives what waited for it.
    pub fn install(&mut self, channel: &Arc<Channel>, reachable: u64, serial: u64) -> Option<Arc<Handshake>> {
        let decryptor = Entry::Decryptor { channel: channel.clone(), reachable, serial };
        self.put(&channel.decryptor, decryptor);
        self.put(&channel.encryptor, Entry::Encryptor(channel.clone()));
        self.handshakes.remove(&channel.decryptor)
    }
}

/// The places that one link may answer to. Bounded: a place that is forgotten is admitted again when something is sent
/// from there.
#[derive(Debug, Default)]
pub struct Replies {
    /// The one used last: most links have few.
    last: Option<ReplyKey>,
    /// None for the many that never need one.
    all: Option<Box<HashSet<ReplyKey>>>,
}

/// Most places that a link may answer to.
const REPLIES_MAX: usize = 64 * 1024;

impl Replies {
    /// None.
    pub fn new() -> Self {
        Replies { last: None, all: None }
    }

    /// Something whose return route begins at `key` is sent over the link.
    pub fn admit(&mut self, key: ReplyKey) {
        if self.last == Some(key) {
            return;
        }
        self.last = Some(key);
        let all = self.all.get_or_insert_with(|| Box::new(HashSet::new()));
        if !all.contains(&key) {
            if all.len() == REPLIES_MAX {
                all.clear();
            }
            all.insert(key);
        }
    }

    /// Whether the link may answer to `key`.
    pub fn admits(&self, key: ReplyKey) -> bool {
        self.last == Some(key) || self.all.as_ref().is_some_and(|all| all.contains(&key))
    }

    /// The place is gone for good.
    pub fn forget(&mut self, key: ReplyKey) {
        if self.last == Some(key) {
            self.last = None;
        }
        if let Some(all) = &mut self.all {
            all.remove(&key);
        }
    }
}
