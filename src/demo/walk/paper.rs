//! What the demo prints: numbered sentences, figures in columns, connection strings.
//!
//! Used by the walk and by `demo::run`. Text is plain; weight and colour are added only where the caller says that a
//! person looks at a terminal, and never change the words. It writes where it is told and decides nothing.

use std::fmt::Display;
use std::io::{self, Write};

/// One line below a step: what was measured, its value, and what belongs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figure {
    pub label: &'static str,
    pub value: String,
    pub note: String,
}

impl Figure {
    pub(super) fn new(label: &'static str, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            label,
            value: value.into(),
            note: note.into(),
        }
    }
}

/// The demo's output.
pub struct Paper<'a> {
    out: &'a mut (dyn Write + Send),
    is_terminal: bool,
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

impl<'a> Paper<'a> {
    /// `is_terminal`: whether a person looks at it, in weight and colour.
    pub fn new(out: &'a mut (dyn Write + Send), is_terminal: bool) -> Self {
        Self { out, is_terminal }
    }

    /// A line as it is.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// The sentence of a step, when it begins.
    pub(super) fn step(&mut self, number: u8, sentence: &str) -> io::Result<()> {
        let heading = self.styled(BOLD, &format!("{number}. {sentence}"));
        self.line(format_args!("\n{heading}"))
    }

    /// A step's figures: labels to the left, values to the right of their columns.
    pub(super) fn figures(&mut self, figures: &[Figure]) -> io::Result<()> {
        let width = |text: fn(&Figure) -> &str| {
            let widths = figures.iter().map(|figure| text(figure).chars().count());
            widths.max().unwrap_or(0)
        };
        let labels = width(|figure| figure.label);
        let values = width(|figure| &figure.value);
        for figure in figures {
            let columns = format!("   {:<labels$}  {:>values$}", figure.label, figure.value);
            if figure.note.is_empty() {
                self.line(columns)?;
            } else {
                let note = self.styled(DIM, &figure.note);
                self.line(format_args!("{columns}  {note}"))?;
            }
        }
        Ok(())
    }

    /// The last line of a walk that reached its end.
    pub fn success(&mut self, text: &str) -> io::Result<()> {
        let success = self.styled(GREEN, text);
        self.line(format_args!("\n{success}"))
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.is_terminal {
            format!("{style}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(is_terminal: bool) -> String {
        let mut out = Vec::new();
        let mut paper = Paper::new(&mut out, is_terminal);
        let figures = [
            Figure::new("cold", "212.4 ms", "through the proxy"),
            Figure::new("hit, simple", "71 µs", "median of 200"),
            Figure::new("ratio", "2,991 x", ""),
        ];
        paper.step(1, "It is computed once.").expect("memory takes it");
        paper.figures(&figures).expect("memory takes it");
        paper.success("demo: 1 step passed").expect("memory takes it");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn columns_are_aligned() {
        let wanted = "
1. It is computed once.
   cold         212.4 ms  through the proxy
   hit, simple     71 µs  median of 200
   ratio         2,991 x

demo: 1 step passed
";
        assert_eq!(printed(false), wanted);
    }

    #[test]
    fn colour_changes_no_word() {
        let mut coloured = printed(true);
        assert!(coloured.contains(GREEN) && coloured.contains(BOLD));
        for style in [BOLD, DIM, GREEN, PLAIN] {
            coloured = coloured.replace(style, "");
        }
        assert_eq!(coloured, printed(false));
    }
}
