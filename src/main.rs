//! The `stampede` command: looks at the processor, then hands over to the library.
//!
//! The build uses vector and AES instructions that not every processor has; one without them would
//! die of an illegal instruction somewhere. So the question comes first, and is asked with plain
//! `cpuid`: the standard library's macro answers "yes" to whatever the build assumes.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_arch = "x86_64")]
    if let Some(missing) = processor::missing() {
        return processor::refuse(missing);
    }
    stampede::cli::main()
}

#[cfg(target_arch = "x86_64")]
mod processor {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::io::Write;
    use std::process::ExitCode;

    /// What the build assumes (`.cargo/config.toml`), as bits of registers.
    #[inline(never)]
    pub(super) fn missing() -> Option<&'static str> {
        let leaf_max = __cpuid(0).eax;
        if leaf_max < 7 {
            return Some("AVX2");
        }
        let (basic, extended) = (__cpuid(1).ecx, __cpuid_count(7, 0).ebx);
        let needed = [
            (basic, 1, "PCLMULQDQ"),
            (basic, 12, "FMA"),
            (basic, 20, "SSE4.2"),
            (basic, 22, "MOVBE"),
            (basic, 23, "POPCNT"),
            (basic, 25, "AES"),
            (basic, 27, "OSXSAVE (the kernel keeps vector registers)"),
            (basic, 28, "AVX"),
            (basic, 29, "F16C"),
            (extended, 3, "BMI1"),
            (extended, 5, "AVX2"),
            (extended, 8, "BMI2"),
            (__cpuid(0x8000_0001).ecx, 5, "LZCNT"),
        ];
        let lacks = |(register, bit, _): &(u32, u32, &str)| register & (1 << bit) == 0;
        needed.into_iter().find(lacks).map(|(_, _, name)| name)
    }

    #[cold]
    pub(super) fn refuse(missing: &str) -> ExitCode {
        let _ = writeln!(
            std::io::stderr(),
            "error: this processor (or its virtual machine) lacks {missing}; stampede needs AVX2 and AES, \
             which x86-64 processors have had since 2013: choose a newer machine type or CPU model"
        );
        ExitCode::FAILURE
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn the_machine_that_runs_this_build_lacks_nothing() {
            assert_eq!(super::missing(), None);
        }
    }
}
