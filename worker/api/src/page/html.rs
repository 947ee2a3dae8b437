//! HTML that cannot be broken by what stands in it: text is escaped where it becomes markup, and nowhere else.

use std::ops::Add;

/// A piece of finished HTML.
#[derive(Clone, Debug, Default)]
pub(super) struct Markup(pub(super) String);

impl Markup {
    /// Text of anyone's making.
    pub fn text(text: &str) -> Self {
        Self(escape(text))
    }
    /// HTML of our own making.
    pub fn trusted(html: &'static str) -> Self {
        Self(html.into())
    }
}

impl Add for Markup {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        self.0.push_str(&other.0);
        self
    }
}

/// An element. `attributes` are of our own making.
pub(super) fn tag(name: &'static str, attributes: &str, inside: Markup) -> Markup {
    let space = if attributes.is_empty() { "" } else { " " };
    Markup(format!("<{name}{space}{attributes}>{}</{name}>", inside.0))
}

pub(super) fn paragraph(class: &'static str, text: &str) -> Markup {
    let class = if class.is_empty() { String::new() } else { format!("class=\"{class}\"") };
    tag("p", &class, Markup::text(text))
}

/// A line to be copied; the script adds the button.
pub(super) fn command(line: &str) -> Markup {
    tag("div", "class=\"command\"", tag("code", "tabindex=\"0\"", Markup::text(line)))
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
