//! Settings of a run as words: `set network-loss 20000`.
//!
//! What has settings lists them with [`settings!`]: their names, the fields behind them, what they
//! may be.

use std::time::Duration;

use crate::plan::{parse_seconds, seconds};

/// A value of a setting as one word.
pub(crate) trait Setting: Sized {
    /// The word.
    fn word(&self) -> String;

    /// What the word says; `None` if that is nothing.
    fn parse(word: &str) -> Option<Self>;
}

impl Setting for u64 {
    fn word(&self) -> String {
        self.to_string()
    }

    fn parse(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

impl Setting for usize {
    fn word(&self) -> String {
        self.to_string()
    }

    fn parse(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

impl Setting for bool {
    fn word(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }
}

impl Setting for Duration {
    fn word(&self) -> String {
        seconds(*self)
    }

    fn parse(word: &str) -> Option<Self> {
        parse_seconds(word).ok().map(Self::from_nanos)
    }
}

/// Chances are so many of a million; the last million would be all.
pub(crate) fn is_chance(ppm: &u64) -> bool {
    *ppm <= 1_000_000
}

/// Whatever takes longer than a minute takes for ever.
pub(crate) fn is_delay(delay: &Duration) -> bool {
    *delay <= Duration::from_secs(60)
}

/// Gives a configuration its settings: `settings()` and `set()`. One that has a network has the
/// network's, too.
macro_rules! settings {
    ($config:ty, $all:ident, and its network; $($own:tt)*) => {
        $crate::settings::settings! {
            $config, $all;
            $($own)*
            "network-delay": (network.delay_min), "a time such as 0.001s, up to 60s",
                $crate::settings::is_delay;
            "network-delay-extra": (network.delay_extra_mean), "a time such as 0.001s, up to 60s",
                $crate::settings::is_delay;
            "network-kib-ns": (network.kib_ns), "0 to a million", |ns| *ns <= 1_000_000;
            "network-loss": (network.loss_ppm), "parts per million", $crate::settings::is_chance;
            "network-duplicate": (network.duplicate_ppm), "parts per million", $crate::settings::is_chance;
            "network-corrupt": (network.corrupt_ppm), "parts per million", $crate::settings::is_chance;
            "network-fifo": (network.fifo), "yes or no", |_| true;
        }
    };
    ($config:ty, $all:ident; $($name:literal: ($($field:ident).+), $hint:literal, $is_allowed:expr;)*) => {
        /// Names of all settings, in the order in which a plan says them.
        pub(crate) const $all: &[&str] = &[$($name),*];

        impl $config {
            /// Name and value of every setting, in a fixed order.
            #[must_use]
            pub fn settings(&self) -> Vec<(&'static str, String)> {
                vec![$(($name, $crate::settings::Setting::word(&self.$($field).+))),*]
            }

            /// Sets what is called `name` to what `word` says.
            ///
            /// # Errors
            /// In words, with the word: there is no such setting, or it cannot be so.
            pub fn set(&mut self, name: &str, word: &str) -> Result<(), String> {
                match name {
                    $($name => {
                        let value = $crate::settings::Setting::parse(word).filter($is_allowed);
                        let wrong = || format!("{name} must be {}, not {word}", $hint);
                        self.$($field).+ = value.ok_or_else(wrong)?;
                    })*
                    _ => {
                        let all = $all.join(", ");
                        return Err(format!("no such setting: {name}; there are {all}"));
                    }
                }
                Ok(())
            }
        }
    };
}

pub(crate) use settings;
