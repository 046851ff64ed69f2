//! `ockam completion`.

use clap::Args;

/// Arguments of `completion`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ockam completion --shell bash > ~/.local/share/bash-completion/completions/ockam\n  \
    ockam completion --shell fish > ~/.config/fish/completions/ockam.fish")]
pub struct Completion {
    /// Which shell
    #[arg(long, value_enum)]
    pub shell: clap_complete::Shell,
}
