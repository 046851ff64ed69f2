//! YAML as a tree whose parts know where they stand. Bounded before memory is spent: depth, and the size of everything
//! with aliases in full.

use super::variables::Expanded;
use super::{Fault, Place};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;

/// How deep lists and maps may lie in one another. A node file needs five.
const DEPTH_MAX: usize = 16;

/// Bytes that the tree may take, about: each part counts [`PART_BYTES`] and its text. Aliases count as what they stand
/// for.
const TREE_BYTES_MAX: usize = 8 << 20;
const PART_BYTES: usize = 64;

/// A part of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a part of the text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`, not in quotes.
    Bool(bool),
    /// Any other scalar.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A map, in the order of the text. Keys are scalars, and differ.
    Map(Vec<(Key, Tree)>),
}

/// The key of an entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it begins.
    pub place: Place,
    /// What it says.
    pub text: String,
}

impl Value {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "empty",
            Value::Bool(_) => "true or false",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Something that is being built, and its anchor (0: none).
enum Open {
    List {
        place: Place,
        anchor: usize,
        items: Vec<Tree>,
    },
    /// `lines` is where each key was said.
    Map {
        place: Place,
        anchor: usize,
        entries: Vec<(Key, Tree)>,
        lines: BTreeMap<String, u32>,
        key: Option<Key>,
    },
}

struct Builder {
    open: Vec<Open>,
    /// What anchors stand for, and the bytes that it counts.
    anchors: BTreeMap<usize, (Tree, usize)>,
    bytes: usize,
    root: Option<Tree>,
}

/// Reads one document.
///
/// # Errors
/// What is wrong with the text, and where.
pub fn parse(expanded: &Expanded<'_>) -> Result<Tree, Fault> {
    let mut builder = Builder { open: Vec::new(), anchors: BTreeMap::new(), bytes: 0, root: None };
    let mut documents = 0;
    for event in Parser::new_from_str(&expanded.text) {
        let (event, span) = event.map_err(|error| {
            Fault::new(expanded.place(error.marker().index()), format!("this is no YAML: {}", error.info()))
        })?;
        let place = expanded.place(span.start.index());
        let tagged = "has a tag, and tags mean nothing here";
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Fault::new(place, "a second document begins here, and a file has one"));
                }
            }
            Event::Scalar(.., Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(Fault::new(place, tagged));
            }
            Event::Scalar(text, style, anchor, None) => {
                let value = scalar(&text, style == ScalarStyle::Plain);
                builder.count(text.len(), place)?;
                builder.add(Tree { place, value }, text.as_ref(), anchor)?;
            }
            Event::SequenceStart(anchor, None) => builder.begin(Open::List { place, anchor, items: vec![] }, place)?,
            Event::MappingStart(anchor, None) => {
                let (entries, lines) = (Vec::new(), BTreeMap::new());
                builder.begin(Open::Map { place, anchor, entries, lines, key: None }, place)?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.end()?,
            Event::Alias(anchor) => builder.alias(anchor, place)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
    builder.root.ok_or_else(|| Fault::new(Place { line: 1, column: 1 }, "there is nothing in it"))
}

fn scalar(text: &str, is_plain: bool) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" if is_plain => Value::Null,
        "true" | "True" | "TRUE" if is_plain => Value::Bool(true),
        "false" | "False" | "FALSE" if is_plain => Value::Bool(false),
        text => Value::Text(text.to_owned()),
    }
}

impl Builder {
    fn count(&mut self, text_bytes: usize, place: Place) -> Result<(), Fault> {
        self.bytes += PART_BYTES + text_bytes;
        if self.bytes > TREE_BYTES_MAX {
            return Err(Fault::new(place, "this is more than a file may say, aliases written out"));
        }
        Ok(())
    }

    fn begin(&mut self, open: Open, place: Place) -> Result<(), Fault> {
        self.count(0, place)?;
        if self.open.len() == DEPTH_MAX {
            return Err(Fault::new(place, format!("this lies deeper than {DEPTH_MAX} lists and maps in one another")));
        }
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(Fault::new(place, "a key must be a text"));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let (tree, anchor) = match self.open.pop() {
            Some(Open::List { place, anchor, items }) => (Tree { place, value: Value::List(items) }, anchor),
            Some(Open::Map { place, anchor, entries, .. }) => (Tree { place, value: Value::Map(entries) }, anchor),
            None => return Ok(()),
        };
        self.add(tree, "", anchor)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Fault> {
        let Some((tree, bytes)) = self.anchors.get(&anchor) else {
            return Err(Fault::new(place, "this stands for something that it lies in"));
        };
        // Before it is copied.
        let (bytes, is_key) = (*bytes, matches!(self.open.last(), Some(Open::Map { key: None, .. })));
        self.bytes += bytes;
        if self.bytes > TREE_BYTES_MAX {
            return Err(Fault::new(place, "this is more than a file may say, aliases written out"));
        }
        let mut tree = tree.clone();
        tree.place = place;
        let text = match &tree.value {
            Value::Text(text) => text.clone(),
            _ if is_key => return Err(Fault::new(place, "a key must be a text")),
            _ => String::new(),
        };
        self.add(tree, &text, 0)
    }

    /// Adds what is complete: a key, a value, an item, or the whole. `text` is what a scalar says.
    fn add(&mut self, tree: Tree, text: &str, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, (tree.clone(), bytes_of(&tree)));
        }
        match self.open.last_mut() {
            None => self.root = Some(tree),
            Some(Open::List { items, .. }) => items.push(tree),
            Some(Open::Map { entries, lines, key, .. }) => match key.take() {
                Some(key) => entries.push((key, tree)),
                None => {
                    if let Some(line) = lines.insert(text.to_owned(), tree.place.line) {
                        let shown = crate::text::escape(text.as_bytes(), 100);
                        return Err(Fault::new(tree.place, format!("`{shown}` was said already, in line {line}")));
                    }
                    *key = Some(Key { place: tree.place, text: text.to_owned() });
                }
            },
        }
        Ok(())
    }
}

fn bytes_of(tree: &Tree) -> usize {
    PART_BYTES
        + match &tree.value {
            Value::Null | Value::Bool(_) => 0,
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(bytes_of).sum(),
            Value::Map(entries) => entries.iter().map(|(key, tree)| PART_BYTES + key.text.len() + bytes_of(tree)).sum(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Tree, Fault> {
        parse(&Expanded::plain(text))
    }

    fn fault(text: &str) -> (u32, u32, String) {
        let fault = read(text).expect_err(text);
        (fault.place.line, fault.place.column, fault.why)
    }

    #[test]
    fn parts_know_where_they_stand() {
        let tree = read("a: 1\nb:\n  - x\n  - \"true\"\n  - true\n  - ~\n").unwrap();
        let Value::Map(entries) = &tree.value else { panic!("{tree:?}") };
        let (key, list) = &entries[1];
        assert_eq!((key.place, key.text.as_str()), (Place { line: 2, column: 1 }, "b"));
        let Value::List(items) = &list.value else { panic!("{list:?}") };
        assert_eq!(items[1].place, Place { line: 4, column: 5 });
        let values: Vec<Value> = items.iter().map(|it| it.value.clone()).collect();
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(values, [text("x"), text("true"), Value::Bool(true), Value::Null]);
    }

    #[test]
    fn what_is_no_tree_is_refused_at_its_place() {
        for (text, line, column, about) in [
            ("", 1, 1, "nothing"),
            ("# only words\n", 1, 1, "nothing"),
            ("a: 1\na: 2\n", 2, 1, "line 1"),
            ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
            ("a: !!int 1\n", 1, 4, "tag"),
            ("? [a]\n: b\n", 1, 3, "key"),
            ("a: &x [*x]\n", 1, 8, "lies in"),
        ] {
            let (found_line, found_column, why) = fault(text);
            assert_eq!((found_line, found_column), (line, column), "{text:?}: {why}");
            assert!(why.contains(about), "{text:?}: {why}");
        }
        for text in ["a: [1\n", "a: b: c\n", "a: \"x", "*nothing", "{", "a\n b: 1\nc"] {
            let _ = fault(text);
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = |depth: usize| format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&deep(DEPTH_MAX)).is_ok());
        assert_eq!(fault(&deep(DEPTH_MAX + 1)).1, DEPTH_MAX as u32 + 1);
        // The parser may see it first.
        let _ = fault(&"[".repeat(1 << 20));
        assert!(fault(&"- ".repeat(1 << 18)).2.contains("deeper"));
        // Ten times ten times ... of a word, in a few hundred bytes.
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..10 {
            let before = format!("*a{},", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(fault(&text).2.contains("more than"), "{text}");
        assert!(fault(&format!("a: [{}]", "1,".repeat(500_000))).2.contains("more than"));
    }

    #[test]
    fn aliases_stand_for_what_was_said() {
        let tree = read("a: &x {b: 1}\nc: *x\n").unwrap();
        let Value::Map(entries) = tree.value else { panic!("no map") };
        assert_eq!(entries[0].1.value, entries[1].1.value);
        assert_eq!(entries[1].1.place, Place { line: 2, column: 4 });
    }
}
