//! The `ockam` command: what was typed ([`args`], [`values`], [`stdin`], [`input`]), what it means ([`plan`]), who does it
//! ([`client`], [`commands`]), and what is shown ([`show`]).

pub(crate) mod args;
pub mod client;
pub mod commands;
pub mod input;
pub mod plan;
pub mod show;
pub mod stdin;
pub mod values;

use crate::api::{ErrorBody, ErrorReport};
use crate::error::{Error, exit};
use crate::home::Home;
use crate::process::{LogOptions, control_process};
pub use args::Cli;
use args::Command;
use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, FromArgMatches};
use commands::Session;
use show::Terminal;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs the command line of this process. The exit code is that of `sysexits.h`.
pub fn main() -> ExitCode {
    crate::process::undumpable::make_undumpable();
    let typed: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&typed) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error, &typed)),
    };
    let terminal = Terminal::new(&cli.globals);
    match run(cli, terminal) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            // Who closed the pipe wants to hear no more.
            let closed = matches!(&error, Error::Io { errno, .. } if *errno == rustix::io::Errno::PIPE.raw_os_error());
            if !closed {
                report(&error.report(), &terminal);
            }
            ExitCode::from(error.exit())
        }
    }
}

fn parse(typed: &[OsString]) -> Result<Cli, clap::Error> {
    let plain = typed.iter().any(|argument| argument == "--no-color");
    let colour = if plain { ColorChoice::Never } else { ColorChoice::Auto };
    let matches = Cli::command().color(colour).try_get_matches_from(typed)?;
    Cli::from_arg_matches(&matches)
}

fn run(cli: Cli, terminal: Terminal) -> Result<(), Error> {
    let log = LogOptions { json: false, verbosity: cli.globals.verbose };
    let mut session = Session::new(terminal, log);
    let session = &mut session;
    match cli.command {
        Command::Node(command) => commands::node::run(command, session),
        Command::Message(command) => commands::message::run(command, session),
        Command::TcpListener(command) => commands::tcp_listener::run(command, session),
        Command::TcpConnection(command) => commands::tcp_connection::run(command, session),
        Command::SecureChannel(command) => commands::secure_channel::run(command, session),
        Command::SecureChannelListener(command) => commands::secure_channel_listener::run(command, session),
        Command::Relay(command) => commands::relay::run(command, session),
        Command::TcpOutlet(command) => commands::tcp_outlet::run(command, session),
        Command::TcpInlet(command) => commands::tcp_inlet::run(command, session),
        Command::Service(command) => commands::service::run(command, session),
        Command::Worker(command) => commands::service::run_worker(command, session),
        Command::FlowControl(command) => commands::service::run_flow_control(command, session),
        Command::Identity(command) => commands::identity::run(command, session),
        Command::Credential(command) => commands::credential::run(command, session),
        Command::Inspect(arguments) => commands::inspect::run(&arguments, session),
        Command::Vault(command) => commands::vault::run(command, session),
        Command::Authority(command) => commands::authority::run(command, session),
        Command::Project(command) => commands::project::run(command, session),
        Command::Ticket(command) => commands::ticket::run(command, session),
        Command::Enroll(arguments) => commands::project::run_enroll(arguments, session),
        Command::ProjectMember(command) => commands::project_member::run(command, session),
        Command::Policy(command) => commands::policy::run(command, session),
        Command::Engine(command) => commands::engine::run(command, session),
        Command::Health(arguments) => commands::health::run(arguments, session),
        Command::Run(arguments) => commands::run::run(arguments, session),
        Command::Environment => commands::environment::run(session),
        Command::Completion(arguments) => commands::completion::run(&arguments),
        Command::Demo(arguments) => crate::demo::run(&arguments, &terminal),
        Command::ControlProcess(arguments) => control_process::run(&Home::at(arguments.home), &arguments.node),
        Command::EngineProcess(arguments) => {
            let config = ockam_engine::Config {
                node_dir: arguments.node_dir,
                driver: arguments.driver,
                threads: arguments.threads,
                pin: arguments.pin,
                portal_memory: arguments.portal_memory,
            };
            ockam_engine::run(config).map_err(|error| Error::internal(format!("the engine could not start: {error}")))
        }
    }
}

/// Writes an error to stderr: what, then what next; as JSON where JSON was asked for.
fn report(error: &ErrorReport, terminal: &Terminal) {
    let text = if terminal.is_json() {
        serde_json::to_string(&ErrorBody { error: error.clone() }).expect("an error has string keys")
    } else {
        let (on, off) = if terminal.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        format!("{on}error:{off} {}\n{}", error.message, error.hint)
    };
    // Nothing can be done for a person whose stderr is closed; the exit code says it, too.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes what clap has to say, which is help, the version or a usage error, and gives the exit code.
fn usage(error: &clap::Error, typed: &[OsString]) -> u8 {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = typed.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
        || typed.iter().any(|argument| argument == "--output=json" || argument == "--compact-output");
    if json && !is_help {
        let report = usage_report(&error.render().to_string());
        let _ = writeln!(
            std::io::stderr(),
            "{}",
            serde_json::to_string(&ErrorBody { error: report }).expect("string keys")
        );
    } else {
        // A reader of help that goes away has read enough.
        let _ = error.print();
    }
    if is_help { exit::OK } else { exit::USAGE }
}

/// A usage error as clap renders it: the message, an empty line, what to do.
fn usage_report(rendered: &str) -> ErrorReport {
    let rendered = rendered.trim();
    let (message, rest) = rendered.split_once("\n\n").unwrap_or((rendered, ""));
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let tips = rest.lines().map(str::trim).filter(|line| line.starts_with("tip:") || line.starts_with("For more"));
    ErrorReport {
        code: "E_USAGE".into(),
        message: one_line(message.strip_prefix("error: ").unwrap_or(message)),
        hint: tips.map(one_line).collect::<Vec<_>>().join(" "),
        exit: exit::USAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        // As a shell: what stands between single quotes is one word.
        let mut typed: Vec<String> = vec![String::new()];
        for (index, part) in line.split('\'').enumerate() {
            let mut words = part.split(' ').filter(|_| index % 2 == 0);
            typed.last_mut().unwrap().push_str(words.next().unwrap_or(part));
            typed.extend(words.map(str::to_owned));
        }
        parse(&typed.into_iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_examples() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
            if command.has_subcommands() {
                command.get_subcommands().filter(|it| !it.is_hide_set()).for_each(|it| walk(it, &path));
            } else {
                let help = command.get_after_help().unwrap_or_else(|| panic!("{path} has no examples")).to_string();
                assert!(help.matches("ockam").count() >= 2, "{path} has fewer than two examples");
            }
        }
        walk(&Cli::command(), "");
    }

    #[test]
    fn every_example_parses() {
        fn walk(command: &clap::Command, lines: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = help.replace("\\\n", "");
            lines.extend(help.lines().map(|line| line.trim().to_owned()).filter(|line| line.starts_with("ockam ")));
            command.get_subcommands().for_each(|it| walk(it, lines));
        }
        let mut lines = Vec::new();
        walk(&Cli::command(), &mut lines);
        assert!(lines.len() > 40, "only {} examples", lines.len());
        for line in lines {
            let line = line.split(['#', '>', '|']).next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            // What a shell would put in is a route or a path.
            let line = match (line.find("\"$("), line.rfind(")\"").or(line.rfind("\""))) {
                (Some(from), Some(to)) => {
                    format!("{}/service/echo{}", &line[..from], line[to..].trim_start_matches([')', '"']))
                }
                _ => line,
            };
            if let Err(error) = parsed(&line) {
                panic!("{line}\n{error}");
            }
        }
    }

    #[test]
    fn wrong_input_names_its_argument() {
        for (line, named) in [
            ("ockam node create n/1", "NAME"),
            ("ockam node create --tcp-listener-address nowhere", "--tcp-listener-address"),
            ("ockam node create --driver kqueue", "--driver"),
            ("ockam node create --threads 0", "--threads"),
            ("ockam node create --portal-memory 1T", "--portal-memory"),
            ("ockam node create --allow-transit 10.0.0.0/8", "--allow-transit"),
            ("ockam node create --exit-on-eof", "--foreground"),
            ("ockam node create --log-format xml", "--log-format"),
            ("ockam node delete n1 --all", "--all"),
            ("ockam node show a.b", "NODE"),
            ("ockam message send hi", "--to"),
            ("ockam message send --to /service/echo", "MESSAGE"),
            ("ockam message send hi --to n1", "--to"),
            ("ockam message send hi --to /nod/n1", "--to"),
            ("ockam message send hi --to /service/echo --timeout soon", "--timeout"),
            ("ockam message send hi --to /service/echo --from /service/n1", "--from"),
            ("ockam tcp-listener create 70000", "HOST:PORT"),
            ("ockam tcp-listener show xyz", "LISTENER"),
            ("ockam tcp-connection create --to 127.0.0.1", "--to"),
            ("ockam tcp-connection show xyz", "CONNECTION"),
            ("ockam secure-channel create", "--to"),
            ("ockam secure-channel create --to n3", "--to"),
            ("ockam secure-channel create --to /service/api --authorized alice", "--authorized"),
            ("ockam secure-channel create --to /service/api --timeout never", "--timeout"),
            ("ockam secure-channel show api", "CHANNEL"),
            ("ockam secure-channel delete --yes", "CHANNEL"),
            ("ockam secure-channel-listener create", "ADDRESS"),
            ("ockam secure-channel-listener create a/b", "ADDRESS"),
            ("ockam secure-channel-listener create api2 -a I00", "--authorized"),
            ("ockam service start web", "SERVICE"),
            ("ockam service start hop --addr a/b", "--addr"),
            ("ockam flow-control add-consumer 12 hop", "FLOW_CONTROL_ID"),
            (
                "ockam node create n1 --project p --authority-identity n --authority-route /ip4/10.0.0.1/tcp/1",
                "--project",
            ),
            ("ockam node create n1 --authority-route /ip4/10.0.0.1/tcp/1", "--authority-identity"),
            ("ockam authority create --okta", "--okta"),
            ("ockam authority create --tenant-base-url x", "hosted service"),
            ("ockam authority create --credential-ttl soon", "--credential-ttl"),
            ("ockam project import", "--project-file"),
            ("ockam project delete", "PROJECT"),
            ("ockam ticket create --attribute a", "--attribute"),
            ("ockam ticket create --attribute identifier=x", "--attribute"),
            ("ockam ticket create --expires-in never", "--expires-in"),
            ("ockam ticket create --usage-count 0", "--usage-count"),
            ("ockam project-member add", "IDENTITY"),
            ("ockam project-member add a.b", "IDENTITY"),
            ("ockam project-member delete x --all", "--all"),
            ("ockam policy create --allow admin", "--resource"),
            ("ockam policy create --resource echo", "--allow"),
            ("ockam policy create --resource echo --allow admin)", "--allow"),
            ("ockam policy create --resource-type door --allow admin", "--resource-type"),
            ("ockam policy check", "RESOURCE"),
            ("ockam tcp-outlet create --to 80 --allow (", "--allow"),
            ("ockam node list --output yaml", "--output"),
            ("ockam completion --shell cmd", "--shell"),
            ("ockam demo --seconds 0", "--seconds"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.to_string().contains(named), "{line}: {error}");
            let report = usage_report(&error.to_string());
            assert!(!report.message.contains('\n') && !report.hint.is_empty(), "{line}: {report:?}");
        }
        let near = parsed("ockam nod list").expect_err("no such noun").to_string();
        assert!(near.contains("'node'"), "{near}");
    }

    #[test]
    fn nodes_are_named_with_and_without_prefix() {
        for line in ["ockam worker list --at n1", "ockam worker list --at /node/n1"] {
            assert!(parsed(line).is_ok(), "{line}");
        }
        assert!(parsed("ockam message send hi --to -/service/echo --from /node/n1").is_ok());
        assert!(parsed("ockam secure-channel create --from /node/n1 --to -/service/api").is_ok());
        assert!(parsed("ockam message send -1 --to /service/echo").is_ok());
    }

    #[test]
    fn authorized_identifiers_are_given_in_any_way() {
        let (one, two) = (format!("I{}", "01".repeat(32)), format!("I{}", "02".repeat(32)));
        for given in [
            format!("-a {one} -a {two}"),
            format!("--authorized {one} {two}"),
            format!("-a {one},{two}"),
            format!("--authorized={one} --authorized={two}"),
        ] {
            let Command::SecureChannel(args::secure_channel::SecureChannelCommand::Create(create)) =
                parsed(&format!("ockam secure-channel create --to /service/api {given} --from n1")).unwrap().command
            else {
                panic!("another command");
            };
            let authorized: Vec<String> = create.trust.authorized.iter().map(ToString::to_string).collect();
            assert_eq!(authorized, [one.as_str(), two.as_str()], "{given}");
            let listener = format!("ockam secure-channel-listener create friends {given} --at n1");
            assert!(parsed(&listener).is_ok(), "{given}");
        }
    }
}
