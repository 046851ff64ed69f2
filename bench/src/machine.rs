//! The machine: processor time and memory of processes, placement on CPUs, congestion control, and what is said about all
//! of it beside every result.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Mutex;

/// Processor time of a process so far, in nanoseconds: all its threads, in user space and in the kernel, kernel workers
/// of its rings included (they are threads of it).
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split_ascii_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// Context switches of a process so far: those it asked for and those it did not.
pub fn switches(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("status")) else { continue };
        let counts = text.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        total += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    Ok(total)
}

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, shared pages divided by their users.
    pub pss: u64,
    /// Resident and nobody else's.
    pub private: u64,
    /// Of `pss`, what is not of a file: code that was given back and runs again is no data.
    pub data: u64,
}

/// Memory of a process now.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
        line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok(Memory {
        rss: field("Rss:"),
        pss: field("Pss:"),
        private: field("Private_Clean:") + field("Private_Dirty:"),
        data: field("Pss_Anon:") + field("Pss_Shmem:"),
    })
}

/// What the CPUs of the machine did so far, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Machine {
    /// Not idle.
    pub busy_s: f64,
    /// Taken by the hypervisor.
    pub steal_s: f64,
    /// Everything.
    pub total_s: f64,
}

impl Machine {
    /// Now.
    pub fn now() -> io::Result<Machine> {
        let text = fs::read_to_string("/proc/stat")?;
        let ticks: Vec<f64> = text
            .lines()
            .next()
            .unwrap_or("")
            .split_ascii_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks[..] else {
            return Err(io::Error::other("/proc/stat has another format"));
        };
        // Hertz of /proc/stat, on every Linux that this runs on.
        let busy = user + nice + system + irq + softirq + steal;
        Ok(Machine { busy_s: busy / 100.0, steal_s: steal / 100.0, total_s: (busy + idle + iowait) / 100.0 })
    }

    /// What happened since.
    pub fn since(self, then: Machine) -> Machine {
        Machine {
            busy_s: self.busy_s - then.busy_s,
            steal_s: self.steal_s - then.steal_s,
            total_s: self.total_s - then.total_s,
        }
    }
}

/// CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect()
}

/// Puts the calling thread on these CPUs; what it starts afterwards inherits that.
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// The system on the first CPU, the load on the others
    Split,
    /// Both on the first CPU
    Together,
    /// Wherever the scheduler wants
    Free,
}

impl Placement {
    /// CPUs of the system and of the load.
    pub fn cpus(self, all: &[usize]) -> (Vec<usize>, Vec<usize>) {
        match (self, all) {
            (Placement::Split, [first, others @ ..]) if !others.is_empty() => (vec![*first], others.to_vec()),
            (Placement::Together, [first, ..]) => (vec![*first], vec![*first]),
            _ => (all.to_vec(), all.to_vec()),
        }
    }
}

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// What the machine had before, while it has ours.
static CONGESTION_BEFORE: Mutex<Option<String>> = Mutex::new(None);

/// Congestion control `cubic` until [`Cubic::restore`]: pacing (BBR) wrecks loopback.
pub struct Cubic {
    /// What is in force, and whether that is what was wanted.
    pub state: String,
}

impl Cubic {
    /// Sets it, or says why not.
    pub fn set() -> Cubic {
        let before = fs::read_to_string(CONGESTION).unwrap_or_default().trim().to_owned();
        if before == "cubic" {
            return Cubic { state: before };
        }
        match fs::write(CONGESTION, "cubic") {
            Ok(()) => {
                *CONGESTION_BEFORE.lock().expect("no holder panics") = Some(before.clone());
                Cubic { state: format!("cubic (set for this run; the machine has {before})") }
            }
            Err(error) => Cubic { state: format!("{before} (cubic cannot be set: {error})") },
        }
    }

    /// Puts back what was there.
    pub fn restore() {
        if let Some(before) = CONGESTION_BEFORE.lock().expect("no holder panics").take() {
            let _ = fs::write(CONGESTION, before);
        }
    }
}

/// What a result must be read with.
#[derive(Debug, Serialize)]
pub struct Environment {
    /// When, RFC 3339 without fractions, UTC.
    pub time: String,
    /// As typed.
    pub command_line: Vec<String>,
    /// Version of this program.
    pub bench_version: &'static str,
    /// Release build or not.
    pub optimized: bool,
    /// `ockam --version`, and where that binary is.
    pub ockam: BTreeMap<String, String>,
    /// `uname -srm`.
    pub kernel: String,
    /// The processor.
    pub cpu: String,
    /// CPUs that may be used, by number.
    pub cpus: Vec<usize>,
    /// Mitigations that are not "Not affected".
    pub mitigations: BTreeMap<String, String>,
    /// Clock governor, if the guest knows one.
    pub governor: Option<String>,
    /// Memory of the machine in bytes.
    pub memory: u64,
    /// 1, 5 and 15 minutes, when the run began: others' work is noise here.
    pub load: String,
    /// What loopback connections use.
    pub congestion_control: String,
    /// Soft limits: descriptors, locked memory.
    pub limits: BTreeMap<&'static str, Option<u64>>,
    /// Where system and load ran.
    pub placement: Placement,
}

impl Environment {
    /// As it is now.
    pub fn look(ockam: BTreeMap<String, String>, cubic: &Cubic, placement: Placement) -> Environment {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let uname = rustix::system::uname();
        let cpu = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpu.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": "));
            line.map_or("?", |(_, value)| value).to_owned()
        };
        let mut mitigations = BTreeMap::new();
        for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten() {
            let state = fs::read_to_string(entry.path()).unwrap_or_default().trim().to_owned();
            if !state.is_empty() && state != "Not affected" {
                mitigations.insert(entry.file_name().to_string_lossy().into_owned(), state);
            }
        }
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let limit = |which| rustix::process::getrlimit(which).current;
        Environment {
            time: now_utc(),
            command_line: std::env::args().collect(),
            bench_version: env!("CARGO_PKG_VERSION"),
            optimized: !cfg!(debug_assertions),
            ockam,
            kernel: format!(
                "{} {} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy(),
                uname.machine().to_string_lossy()
            ),
            cpu: format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t")),
            cpus: cpus(),
            mitigations,
            governor: (!governor.is_empty()).then_some(governor),
            memory: rustix::system::sysinfo().totalram as u64,
            load: read("/proc/loadavg"),
            congestion_control: cubic.state.clone(),
            limits: [
                ("descriptors", limit(rustix::process::Resource::Nofile)),
                ("locked_memory", limit(rustix::process::Resource::Memlock)),
            ]
            .into(),
            placement,
        }
    }
}

/// The date of today, in UTC (days to a date: H. Hinnant's civil calendar arithmetic).
fn now_utc() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (since / 86_400 + 719_468, since % 86_400);
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let before = cpu_ns(std::process::id()).unwrap();
        let work: u64 = (0..20_000_000_u64).fold(0, |sum, value| std::hint::black_box(sum ^ value));
        assert!(cpu_ns(std::process::id()).unwrap() > before, "{work}");
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.rss >= memory.pss && memory.pss > 100_000, "{memory:?}");
        assert!(memory.pss >= memory.data && memory.data > 10_000, "{memory:?}");
        assert!(switches(std::process::id()).is_ok());
        assert!(Machine::now().unwrap().total_s > 0.0);
    }

    #[test]
    fn placements_of_two_cpus_and_of_one() {
        assert_eq!(Placement::Split.cpus(&[3, 5]), (vec![3], vec![5]));
        assert_eq!(Placement::Together.cpus(&[3, 5]), (vec![3], vec![3]));
        assert_eq!(Placement::Free.cpus(&[3, 5]), (vec![3, 5], vec![3, 5]));
        assert_eq!(Placement::Split.cpus(&[3]), (vec![3], vec![3]));
    }
}
