//! Policies as CBOR (`wire.md` H.5): variants are `[index, [fields]]`.

use crate::boolean::Boolean;
use crate::problem::Problem;
use crate::{DEPTH_MAX, ENCODED_MAX, Expr, NODES_MAX, Operator, Policy};
use minicbor::{Decoder, Encoder, decode};

const FULL: u32 = 0;
const BOOLEAN: u32 = 1;

const STR: u32 = 1;
const INT: u32 = 2;
const FLOAT: u32 = 3;
const BOOL: u32 = 4;
const IDENT: u32 = 5;
const SEQ: u32 = 6;
const LIST: u32 = 7;

const NAME: u32 = 0;
const NAME_VALUE: u32 = 1;
const IDENTIFIER: u32 = 2;
const OR: u32 = 3;
const AND: u32 = 4;
const NOT: u32 = 5;

impl From<decode::Error> for Problem {
    fn from(_: decode::Error) -> Self {
        Problem::Malformed
    }
}

impl Expr {
    /// CBOR of the expression alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut output = Encoder::new(Vec::new());
        write_expr(self, &mut output).expect("a Vec takes everything");
        output.into_writer()
    }

    /// Reads the CBOR of an expression alone, which may be less than a policy: a value, a name.
    ///
    /// # Errors
    /// Malformed, with something behind it, larger than a policy may be, or nothing that a text could say.
    pub fn decode(encoded: &[u8]) -> Result<Self, Problem> {
        let mut reader = Reader::new(encoded)?;
        let expr = reader.expr(1)?;
        reader.end()?;
        Ok(expr)
    }
}

pub(crate) fn encode_policy(boolean: Option<&Boolean>, expr: &Expr) -> Vec<u8> {
    let mut output = Encoder::new(Vec::new());
    match boolean {
        Some(boolean) => variant(BOOLEAN, 1, &mut output).and_then(|output| write_boolean(boolean, output)),
        None => variant(FULL, 1, &mut output).and_then(|output| write_expr(expr, output)),
    }
    .expect("a Vec takes everything");
    output.into_writer()
}

pub(crate) fn decode_policy(encoded: &[u8]) -> Result<Policy, Problem> {
    let mut reader = Reader::new(encoded)?;
    match reader.variant()? {
        (FULL, 1) => {
            let policy = Policy::from_expr(reader.expr(1)?)?;
            reader.end()?;
            Ok(policy)
        }
        (BOOLEAN, 1) => {
            let boolean = reader.boolean(1)?;
            reader.end()?;
            Policy::from_boolean(boolean)
        }
        _ => Err(Problem::Malformed),
    }
}

type Output = Encoder<Vec<u8>>;
type Written<T = ()> = Result<T, minicbor::encode::Error<std::convert::Infallible>>;

fn variant(index: u32, fields: u64, output: &mut Output) -> Written<&mut Output> {
    output.array(2)?.u32(index)?.array(fields)
}

fn write_expr(expr: &Expr, output: &mut Output) -> Written {
    match expr {
        Expr::Str(text) => variant(STR, 1, output)?.str(text)?,
        Expr::Int(value) => variant(INT, 1, output)?.i64(*value)?,
        Expr::Float(value) => variant(FLOAT, 1, output)?.f64(*value)?,
        Expr::Bool(value) => variant(BOOL, 1, output)?.bool(*value)?,
        Expr::Name(name) => variant(IDENT, 1, output)?.str(name)?,
        Expr::Seq(items) => variant(SEQ, 1, output)?.array(items.len() as u64)?,
        // What is no value is an application.
        _ => {
            let operator = expr.operator().map_or("", Operator::name);
            variant(LIST, 1, output)?.array(1 + expr.children().len() as u64)?;
            variant(IDENT, 1, output)?.str(operator)?
        }
    };
    expr.children().iter().try_for_each(|child| write_expr(child, output))
}

fn write_boolean(boolean: &Boolean, output: &mut Output) -> Written {
    match boolean {
        Boolean::Name(name) => variant(NAME, 1, output)?.str(name)?,
        Boolean::NameValue(name, value) => variant(NAME_VALUE, 2, output)?.str(name)?.str(value)?,
        Boolean::Identifier(identifier) => variant(IDENTIFIER, 1, output)?.str(identifier)?,
        Boolean::Or(items) => return write_chain(OR, items, output),
        Boolean::And(items) => return write_chain(AND, items, output),
        Boolean::Not(item) => return write_boolean(item, variant(NOT, 1, output)?),
    };
    Ok(())
}

/// `a or b or c` is Or(Or(a, b), c).
fn write_chain(index: u32, items: &[Boolean], output: &mut Output) -> Written {
    for _ in 1..items.len() {
        variant(index, 2, output)?;
    }
    items.iter().try_for_each(|item| write_boolean(item, output))
}

struct Reader<'b> {
    input: Decoder<'b>,
    nodes: usize,
}

impl<'b> Reader<'b> {
    fn new(encoded: &'b [u8]) -> Result<Self, Problem> {
        if encoded.len() > ENCODED_MAX {
            return Err(Problem::Malformed);
        }
        Ok(Reader { input: Decoder::new(encoded), nodes: 0 })
    }

    fn end(&self) -> Result<(), Problem> {
        if self.input.position() == self.input.input().len() { Ok(()) } else { Err(Problem::Malformed) }
    }

    fn count(&mut self) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { Err(Problem::TooManyParts) } else { Ok(()) }
    }

    /// Of definite length, as everything that real nodes write.
    fn array(&mut self) -> Result<u64, Problem> {
        self.input.array()?.ok_or(Problem::Malformed)
    }

    /// Its index and how many fields follow.
    fn variant(&mut self) -> Result<(u32, u64), Problem> {
        if self.array()? != 2 {
            return Err(Problem::Malformed);
        }
        Ok((self.input.u32()?, self.array()?))
    }

    /// `depth` is how many lists and sequences are around what this one has in it, itself included.
    fn expr(&mut self, depth: usize) -> Result<Expr, Problem> {
        self.count()?;
        match self.variant()? {
            (STR, 1) => Ok(Expr::Str(self.input.str()?.into())),
            (INT, 1) => Ok(Expr::Int(self.input.i64()?)),
            (FLOAT, 1) => Expr::float(self.input.f64()?),
            (BOOL, 1) => Ok(Expr::Bool(self.input.bool()?)),
            (IDENT, 1) => Expr::name(self.input.str()?),
            (SEQ | LIST, 1) if depth > DEPTH_MAX => Err(Problem::TooDeep),
            (SEQ, 1) => {
                let length = self.array()?;
                Expr::sequence(self.exprs(length, depth)?)
            }
            (LIST, 1) => {
                let length = self.array()?.checked_sub(1).ok_or(Problem::NotAnOperator)?;
                let (IDENT, 1) = self.variant()? else { return Err(Problem::NotAnOperator) };
                let operator = Operator::named(self.input.str()?).ok_or(Problem::NotAnOperator)?;
                Expr::apply(operator, self.exprs(length, depth)?)
            }
            _ => Err(Problem::Malformed),
        }
    }

    /// Memory follows what is there, not what `length` claims.
    fn exprs(&mut self, length: u64, depth: usize) -> Result<Vec<Expr>, Problem> {
        let mut exprs = Vec::new();
        for _ in 0..length {
            exprs.push(self.expr(depth + 1)?);
        }
        Ok(exprs)
    }

    /// `depth` as for expressions. The left side of a chain is a loop: its depth is that of the text, not of the encoding.
    fn boolean(&mut self, depth: usize) -> Result<Boolean, Problem> {
        match self.variant()? {
            (OR | AND | NOT, _) if depth > DEPTH_MAX => Err(Problem::TooDeep),
            (OR, 2) => self.chain(OR, Boolean::or, depth),
            (AND, 2) => self.chain(AND, Boolean::and, depth),
            (NOT, 1) => {
                self.count()?;
                Ok(Boolean::Not(Box::new(self.boolean(depth + 1)?)))
            }
            (NAME_VALUE, 2) => {
                self.count()?;
                Boolean::name_value(self.input.str()?, self.input.str()?)
            }
            (variant @ (NAME | IDENTIFIER), 1) => {
                self.count()?;
                let found = Boolean::name(self.input.str()?)?;
                // In text, the name itself says which of the two it is.
                let as_said = matches!(found, Boolean::Name(_)) == (variant == NAME);
                if as_said { Ok(found) } else { Err(Problem::Name) }
            }
            // Empty says nothing and permits nobody; real nodes never make one from a text.
            _ => Err(Problem::Malformed),
        }
    }

    /// After the head of the outermost Or or And.
    fn chain(&mut self, index: u32, join: fn(Boolean, Boolean) -> Boolean, depth: usize) -> Result<Boolean, Problem> {
        let mut right = 1;
        loop {
            let before = self.input.position();
            if self.variant()? != (index, 2) {
                self.input.set_position(before);
                break;
            }
            right += 1;
        }
        let mut left = self.boolean(depth + 1)?;
        for _ in 0..right {
            left = join(left, self.boolean(depth + 1)?);
        }
        Ok(left)
    }
}
