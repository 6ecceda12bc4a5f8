//! Why the kernel refuses an io_uring, said so that an operator can do something about it.
//!
//! The same error number has several causes: `EPERM` comes from the `kernel.io_uring_disabled`
//! setting and from container runtimes whose seccomp profile leaves out the three system calls.
//! What this machine says about itself decides between them.

use std::fmt;
use std::fs;
use std::io;

/// The oldest kernel that has what the replica thread is built on.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

const SETTING: &str = "/proc/sys/kernel/io_uring_disabled";

/// The ring could not be created.
#[derive(Debug, thiserror::Error)]
#[error("io_uring is not available: {cause} ({error})")]
pub struct RingRefused {
    cause: Cause,
    #[source]
    error: io::Error,
}

/// What this machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    OldKernel(String),
    Disabled(u32),
    Seccomp(&'static str),
    Memory(String),
    Unknown(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = KERNEL_MIN;
        match self {
            Self::OldKernel(release) => write!(
                f,
                "this kernel is {release}; run Linux {major}.{minor} or newer"
            ),
            Self::Disabled(1) => f.write_str(
                "kernel.io_uring_disabled is 1: only processes with CAP_SYS_ADMIN, or of the group \
                 in kernel.io_uring_group, may use it; run `sysctl kernel.io_uring_disabled=0`, or \
                 put this user into that group",
            ),
            Self::Disabled(value) => write!(
                f,
                "kernel.io_uring_disabled is {value}; run `sysctl kernel.io_uring_disabled=0` and \
                 make it permanent in /etc/sysctl.d"
            ),
            Self::Seccomp(container) => write!(
                f,
                "kernel.io_uring_disabled is 0, so {container} blocks it: run with a seccomp profile \
                 that allows io_uring_setup, io_uring_enter and io_uring_register \
                 (docker run --security-opt seccomp=<profile>.json)"
            ),
            Self::Memory(limit) => write!(
                f,
                "not enough memory for the ring (locked memory is limited to {limit}); set \
                 LimitMEMLOCK=infinity in the service or `ulimit -l unlimited`"
            ),
            Self::Unknown(release) => write!(f, "the kernel ({release}) refuses it"),
        }
    }
}

impl RingRefused {
    /// Finds the cause of an error of `io_uring_setup`.
    pub(super) fn explain(error: io::Error) -> Self {
        let release = kernel_release();
        let disabled = fs::read_to_string(SETTING)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let cause = cause(
            error.raw_os_error(),
            &release,
            disabled,
            container(),
            &super::host::locked_memory(),
        );
        Self { cause, error }
    }
}

fn cause(
    errno: Option<i32>,
    release: &str,
    disabled: Option<u32>,
    container: Option<&'static str>,
    limit: &str,
) -> Cause {
    let old = parse_release(release).is_some_and(|version| version < KERNEL_MIN);
    match errno {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            if let Some(value @ 1..) = disabled {
                Cause::Disabled(value)
            } else if old {
                Cause::OldKernel(release.to_owned())
            } else {
                Cause::Seccomp(
                    container.unwrap_or("a seccomp filter of whoever started this process"),
                )
            }
        }
        Some(libc::EINVAL) if old => Cause::OldKernel(release.to_owned()),
        Some(libc::ENOMEM) => Cause::Memory(limit.to_owned()),
        _ => Cause::Unknown(release.to_owned()),
    }
}

/// The running kernel's release, such as `6.12.48`.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Major and minor number of a release.
pub fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The container runtime around this process, if it leaves a trace.
fn container() -> Option<&'static str> {
    let exists = |path: &str| fs::exists(path).unwrap_or(false);
    if exists("/.dockerenv") {
        Some("Docker's seccomp profile")
    } else if exists("/run/.containerenv") {
        Some("Podman's seccomp profile")
    } else if exists("/var/run/secrets/kubernetes.io") {
        Some("the seccomp profile of the Kubernetes runtime")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("5.4"), Some((5, 4)));
        assert_eq!(parse_release("unknown"), None);
        assert!(parse_release("6.12").unwrap() > KERNEL_MIN);
        assert!(parse_release(&kernel_release()).is_some());
    }

    #[test]
    fn the_cause_names_what_to_change() {
        let say = |errno, release, disabled, container| {
            cause(Some(errno), release, disabled, container, "8192 KiB").to_string()
        };
        assert!(say(libc::EPERM, "6.12.0", Some(2), None).contains("io_uring_disabled is 2"));
        assert!(say(libc::EPERM, "6.12.0", Some(1), None).contains("io_uring_group"));
        let docker = Some("Docker's seccomp profile");
        assert!(say(libc::EPERM, "6.12.0", Some(0), docker).contains("Docker"));
        assert!(say(libc::ENOSYS, "6.12.0", None, None).contains("seccomp"));
        assert!(say(libc::ENOSYS, "5.4.0", None, docker).contains("5.4.0; run Linux 6.1"));
        assert!(say(libc::EINVAL, "5.10.2", Some(0), None).contains("5.10.2"));
        assert!(say(libc::ENOMEM, "6.12.0", Some(0), None).contains("8192 KiB"));
        assert!(say(libc::EMFILE, "6.12.0", Some(0), None).contains("6.12.0"));
    }
}
