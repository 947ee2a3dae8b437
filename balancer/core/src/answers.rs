//! What a gateway's TX_ACKs have shown of it: whether its silence means something, and how long one must listen for it.

use core::time::Duration;

/// Most gateways answer as soon as they have read the PULL_RESP; over a line without delays that takes less.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Each answer that is faster than the slowest takes that nearer to itself by this part of the difference: a line that
/// stalls now and then is believed to for some thirty answers.
const DECAY: u32 = 16;

/// The TX_ACKs of one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// It answers under our tokens, as far as is known: so it has a queue, and its silence means something.
    pub echoes: bool,
    /// How long its slowest answer took; less with each that is faster.
    slowest: Duration,
}

impl Answers {
    /// It has answered under a token of ours, so long after that went out.
    pub fn matched(&mut self, time: Duration) {
        self.echoes = true;
        self.slowest = time.max(self.slowest.saturating_sub(self.slowest.saturating_sub(time) / DECAY));
    }

    /// It has answered under a token that is none of ours: it may put in what it likes, and until one fits again its
    /// silence says nothing.
    pub fn unmatched(&mut self) {
        self.echoes = false;
    }

    /// Silence for so long is a refusal.
    pub fn patience(&self) -> Duration {
        ANSWER_WITHIN.max(self.slowest * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn patience_is_twice_the_slowest_answer_of_late_and_never_less_than_a_fast_line_needs() {
        let long_ago: &[u32] = &[&[600][..], &[20; 100][..]].concat();
        let table: [(&[u32], u32); 6] = [
            (&[], 250),
            (&[20, 30, 125], 250),
            (&[20, 600], 1_200),
            (&[600, 20], 1_127), // 600 - 580 / 16 = 563.75
            (&[600, 600, 900], 1_800),
            (long_ago, 250),
        ];
        for (answers, expected) in table {
            let mut gateway = Answers::default();
            answers.iter().for_each(|&ms| gateway.matched(MS * ms));
            assert_eq!(gateway.patience().as_millis(), u128::from(expected), "{answers:?}");
        }
    }

    #[test]
    fn a_foreign_token_takes_the_meaning_from_its_silence_until_one_of_ours_comes_back() {
        let mut gateway = Answers::default();
        assert!(!gateway.echoes);
        gateway.matched(MS * 600);
        assert!(gateway.echoes);
        gateway.unmatched();
        assert!(!gateway.echoes);
        gateway.matched(MS * 600);
        assert!(gateway.echoes);
        assert_eq!(gateway.patience(), MS * 1_200, "what was measured stays");
    }
}
