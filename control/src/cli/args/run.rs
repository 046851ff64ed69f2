//! `ockam run`.

use crate::cli::values::{self, NodeSource, Variable};
use clap::{Args, ValueHint};

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ockam run\n  ockam run three-nodes.yaml --variable PORT=5432\n  \
    ockam run --inline \"$(cat three-nodes.yaml)\"\n\n\
    A recipe is a file like that of `ockam node create FILE`, for several nodes: `nodes`, and an `at` with each portal.")]
pub struct RunRecipe {
    /// The file; ockam.yml or ockam.yaml of this directory when left out, `-` for stdin
    #[arg(value_name = "RECIPE", value_parser = values::recipe, value_hint = ValueHint::FilePath, conflicts_with = "inline")]
    pub recipe: Option<NodeSource>,
    /// The recipe itself
    #[arg(long, value_name = "YAML")]
    pub inline: Option<String>,
    /// A value for `$KEY` in the recipe, before that of the environment and that which the recipe gives; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub variable: Vec<Variable>,
    /// Make anew what is there and differs from the recipe; its connections end. Without this it is an error
    #[arg(long)]
    pub replace: bool,
}
