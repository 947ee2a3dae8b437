//! Whether a script may be expected to run where the language's own objects cannot be changed. A wrong *yes* is found out when it
//! runs and costs one call more; a *no* costs an engine of its own for each call.

/// Words of scripts that do more to their surroundings than codecs need.
const WILD: [&str; 11] = [
    "eval",
    "Function(",
    "globalThis",
    "__proto__",
    "setPrototypeOf",
    "__define",
    "import",
    "export",
    "async",
    "Promise",
    "Proxy",
];
/// Objects that the language brings.
const BUILT_IN: [&str; 24] = [
    "Object",
    "Array",
    "String",
    "Number",
    "Boolean",
    "Symbol",
    "BigInt",
    "Math",
    "JSON",
    "Date",
    "RegExp",
    "Function",
    "Map",
    "Set",
    "Error",
    "Buffer",
    "ArrayBuffer",
    "DataView",
    "Uint8Array",
    "Int8Array",
    "parseInt",
    "parseFloat",
    "isNaN",
    "Reflect",
];
/// What objects and arrays inherit: a property of such a name cannot be set on one by `=` when what it inherits is fixed.
const INHERITED: [&str; 45] = [
    "constructor",
    "toString",
    "toLocaleString",
    "valueOf",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "at",
    "concat",
    "copyWithin",
    "entries",
    "every",
    "fill",
    "filter",
    "find",
    "findIndex",
    "findLast",
    "flat",
    "flatMap",
    "forEach",
    "includes",
    "indexOf",
    "join",
    "keys",
    "lastIndexOf",
    "map",
    "pop",
    "push",
    "reduce",
    "reduceRight",
    "reverse",
    "shift",
    "slice",
    "some",
    "sort",
    "splice",
    "toReversed",
    "toSorted",
    "toSpliced",
    "unshift",
    "values",
    "with",
    "apply",
    "bind",
    "call",
];
/// And errors.
const OF_ERRORS: [&str; 3] = ["name", "message", "stack"];

pub(crate) fn is_tame(script: &str) -> bool {
    if WILD.iter().any(|word| script.contains(word)) {
        return false;
    }
    let defines = ["defineProperty", "defineProperties", ".assign("].iter().any(|word| script.contains(word));
    let errors = script.contains("Error");
    if defines && script.contains("prototype") {
        return false;
    }
    identifiers(script).all(|(before, name, after)| {
        let changed = if before == Some('.') {
            (INHERITED.contains(&name) || errors && OF_ERRORS.contains(&name)) && is_assigned(after)
        } else {
            BUILT_IN.contains(&name) && is_assigned(member(after))
        };
        !changed
    })
}

/// Each name, with the character before it and the text after it.
fn identifiers(text: &str) -> impl Iterator<Item = (Option<char>, &str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(in_name)?;
        let before = rest[..start].chars().next_back();
        let end = rest[start..].find(|c| !in_name(c)).map_or(rest.len(), |at| start + at);
        let name = &rest[start..end];
        rest = &rest[end..];
        Some((before, name, rest))
    })
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// What follows `.a.b["c"]`.
fn member(mut after: &str) -> &str {
    loop {
        after = after.trim_start();
        if let Some(rest) = after.strip_prefix('.') {
            after = rest.trim_start().trim_start_matches(in_name);
        } else if let Some((_, rest)) = after.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            after = rest;
        } else {
            return after;
        }
    }
}

fn is_assigned(after: &str) -> bool {
    let after = after.trim_start();
    let plain = after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>");
    plain || ["||=", "??=", "&&="].iter().any(|by| after.starts_with(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_language_is_told_from_what_uses_it() {
        let tame = [
            "var a = Array.isArray(b) == true; let o = Object.assign({}, a)",
            "const n = Number.MAX_VALUE, name = 'x'; device.name = name; data.value = parseInt(x, 16) === 3",
            "Array.prototype.slice.call(bytes).map(b => b.toString(16)).join('')",
            "function Reader() {} Reader.prototype.next = function () { return 1 }",
            "X = 23; if (data.values === 1) { data.values2 = 3 }",
        ];
        let wild = [
            "String.prototype.padStart = function () {}",
            "Array.prototype [ 'last' ] = f",
            "if (!Math.trunc) Math.trunc = function () {}",
            "Number.isInteger = Number.isInteger || f",
            "Number.isInteger ??= f",
            "Object.assign(Array.prototype, { last() {} })",
            "data.values = []",
            "try { } catch (e) { throw new Error(e) } x.name = 3",
            "globalThis.x = 1",
            "import { Buffer } from 'buffer'",
        ];
        tame.iter().for_each(|script| assert!(is_tame(script), "{script}"));
        wild.iter().for_each(|script| assert!(!is_tame(script), "{script}"));
    }
}
