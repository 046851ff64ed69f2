//! The code of this process.

use rustix::mm::{Advice, madvise};
use std::fs;

/// Gives back the pages of this program's code: most of what a start runs through nothing needs again. What is needed comes
/// back from the page cache when it is next called, a few dozen pages at a time.
///
/// It is a matter of memory only; where it cannot be done, nothing is lost.
pub fn give_back() {
    let (Ok(maps), Ok(program)) = (fs::read_to_string("/proc/self/maps"), fs::read_link("/proc/self/exe")) else {
        return;
    };
    let Some(program) = program.to_str() else { return };
    for (start, end) in maps.lines().filter_map(|line| code_of(line, program)) {
        // SAFETY: a private mapping that nothing has ever written to, since it cannot be: what a page of it reads as after
        // this is what it read as before, the bytes of the file that is being executed.
        let _ = unsafe { madvise(std::ptr::without_provenance_mut(start), end - start, Advice::LinuxDontNeed) };
    }
}

/// Where a line of `/proc/PID/maps` (proc_pid_maps(5)) maps code of `program`. Mappings that are only read do not count: the
/// loader has written to some of those.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let rest = line.strip_suffix(program)?;
    let mut fields = rest.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp";
    let range = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (is_code && range.0 < range.1 && fields.count() == 3).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_counts() {
        let program = "/usr/bin/ockam";
        let code = "55d0c0a00000-55d0c1600000 r-xp 00300000 fe:00 1234    /usr/bin/ockam";
        assert_eq!(code_of(code, program), Some((0x55d0_c0a0_0000, 0x55d0_c160_0000)));
        for other in [
            "55d0c0a00000-55d0c1600000 r--p 00300000 fe:00 1234    /usr/bin/ockam",
            "55d0c0a00000-55d0c1600000 rwxp 00300000 fe:00 1234    /usr/bin/ockam",
            "55d0c0a00000-55d0c1600000 r-xp 00300000 fe:00 1234    /other /usr/bin/ockam",
            "55d0c0a00000-55d0c1600000 r-xp 00300000 fe:00 1234    /usr/bin/ockam (deleted)",
            "7f0000000000-7f0000001000 r-xp 00000000 00:00 0       [vdso]",
            "55d0c1600000-55d0c0a00000 r-xp 00300000 fe:00 1234    /usr/bin/ockam",
            "",
        ] {
            assert_eq!(code_of(other, program), None, "{other}");
        }
    }

    #[test]
    fn the_program_runs_on() {
        give_back();
        only_code_of_the_program_counts();
        give_back();
    }
}
