//! A JavaScript engine with one script in it.
//!
//! Nothing of one call is seen by the next. A *fresh* realm is made for one call and thrown away. In a *still* one all that the
//! language brings cannot be changed, the script is the body of a function that begins anew with each call, so that its variables
//! are that call's, and a realm that has got another global property, or has something left to do, is thrown away.

mod answers;
mod clock;

pub(crate) use clock::{Thread, used};

use std::rc::Rc;

use rquickjs::{
    CatchResultExt, CaughtError, Context, Ctx, Error, FromJs, Function, Module, Persistent, Runtime, Value,
    context::EvalOptions,
    loader::{BuiltinLoader, BuiltinResolver},
};

use crate::{
    CodecError, Limits,
    js::{Answer, Call},
};
use clock::Clock;

/// What an engine has before a script is in it, and more than that.
const EMPTY: usize = 2 * 1024 * 1024;
/// The engine's share of a thread's stack.
pub(crate) const STACK: usize = 512 * 1024;
/// The name of a script in what it reports.
const NAME: &str = "codec";
const BUFFER: &str = include_str!("js/buffer.js");
const STILL: &str = include_str!("js/still.js");
/// An object of the two functions of a script.
const ENTRY: &str = include_str!("js/entry.js");

/// Why a call gave no answer.
enum Fault {
    /// The engine's.
    Js(Error),
    Ours(CodecError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Js(error)
    }
}

impl From<CodecError> for Fault {
    fn from(error: CodecError) -> Self {
        Self::Ours(error)
    }
}

struct Realm {
    context: Context,
    runtime: Runtime,
    clock: Rc<Clock>,
    limits: Limits,
}

impl Realm {
    fn new(limits: Limits) -> Result<Self, CodecError> {
        let engine = |_| CodecError::Engine;
        let runtime = Runtime::new().map_err(engine)?;
        runtime.set_memory_limit(EMPTY + limits.memory);
        runtime.set_max_stack_size(STACK);
        let clock = Rc::new(Clock::new(limits.time));
        let asked = clock.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || asked.is_over())));
        let context = Context::full(&runtime).map_err(engine)?;
        Ok(Self { context, runtime, clock, limits })
    }

    /// Runs it within the limits; the time begins here.
    fn run<T>(&self, work: impl FnOnce(&Ctx<'_>) -> Result<T, Fault>) -> Result<T, CodecError> {
        self.clock.start();
        self.context.with(|ctx| {
            let done = work(&ctx);
            // What is told of an error may run the script again, and so may be stopped too.
            let done = done.map_err(|fault| self.judge(&ctx, fault));
            if self.clock.has_stopped() { Err(CodecError::Time(self.limits.time)) } else { done }
        })
    }

    /// What modules may import.
    fn let_import(&self) {
        let resolver = BuiltinResolver::default().with_module("buffer");
        let loader = BuiltinLoader::default()
            .with_module("buffer", "export const Buffer = globalThis.Buffer; export default { Buffer };");
        self.runtime.set_loader(resolver, loader);
    }

    fn judge(&self, ctx: &Ctx<'_>, fault: Fault) -> CodecError {
        let error = match fault {
            Fault::Ours(error) => return error,
            Fault::Js(error) => error,
        };
        match Err::<(), _>(error).catch(ctx) {
            Err(CaughtError::Exception(thrown)) => match answers::told(thrown.as_object().as_value()) {
                told if told.starts_with("InternalError: out of memory") => CodecError::Memory(self.limits.memory),
                told => CodecError::Thrown(told),
            },
            // The engine had no memory left for an error.
            Err(CaughtError::Value(thrown)) if thrown.is_null() => CodecError::Memory(self.limits.memory),
            Err(CaughtError::Value(thrown)) => CodecError::Thrown(answers::told(&thrown)),
            Err(CaughtError::Error(Error::Allocation)) => CodecError::Memory(self.limits.memory),
            Err(CaughtError::Error(error)) => CodecError::Answer(error.to_string()),
            Ok(()) => CodecError::Engine,
        }
    }
}

fn script<'js, T: FromJs<'js>>(ctx: &Ctx<'js>, text: impl Into<Vec<u8>>) -> Result<T, Error> {
    let mut options = EvalOptions::default();
    // As ChirpStack did until its version 4.17: codecs in use assign to names that they do not declare.
    options.strict = false;
    options.filename = Some(NAME.into());
    ctx.eval_with_options(text, options)
}

fn bring_buffer(ctx: &Ctx<'_>, text: &str) -> Result<(), Error> {
    if text.contains("Buffer") { ctx.eval(BUFFER) } else { Ok(()) }
}

/// One call of a script, in an engine of its own.
pub(crate) fn fresh(limits: Limits, text: &str, call: &Call) -> Result<Answer, CodecError> {
    let realm = Realm::new(limits)?;
    let is_module = is_module(text);
    if is_module {
        realm.let_import();
    }
    realm.run(|ctx| {
        bring_buffer(ctx, text)?;
        let entry = if is_module {
            module(&realm.clock, ctx, text)?
        } else {
            // First by itself: what is wrong with it has its own lines.
            script::<()>(ctx, text)?;
            script(ctx, format!("({ENTRY})"))?
        };
        answers::call(ctx, entry, call)
    })
}

/// Scripts that import or export are modules, which ChirpStack takes since 4.17.
fn is_module(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        ["import", "export"].iter().any(|word| {
            let after = line.strip_prefix(word).and_then(|rest| rest.chars().next());
            after.is_some_and(|c| matches!(c, ' ' | '{' | '*' | '"' | '\''))
        })
    })
}

fn module<'js>(clock: &Clock, ctx: &Ctx<'js>, text: &str) -> Result<Value<'js>, Error> {
    let declared = Module::declare(ctx.clone(), NAME, format!("{text}\n;export const limpet_entry = {ENTRY};"))?;
    let (module, loaded) = declared.eval()?;
    // What it awaits may make more to do for ever, a little at a time.
    let mut result = loaded.result::<()>();
    while result.is_none() && !clock.is_over() && ctx.execute_pending_job() {
        result = loaded.result();
    }
    result.unwrap_or(Err(Error::WouldBlock))?;
    module.get("limpet_entry")
}

/// An engine for many calls of one script.
pub(crate) struct Still {
    // Before the engine that they are of.
    script: Persistent<Function<'static>>,
    is_unchanged: Persistent<Function<'static>>,
    realm: Realm,
}

impl Still {
    /// The script must be one that [`fresh`] has run: then it is whole, and cannot end the function that is put around it.
    pub fn new(limits: Limits, text: &str) -> Result<Self, CodecError> {
        let realm = Realm::new(limits)?;
        let (script, is_unchanged) = realm.run(|ctx| {
            bring_buffer(ctx, text)?;
            let is_unchanged: Function = ctx.eval(STILL)?;
            let script: Function = script(ctx, format!("Object.freeze(() => {{{text}\n;return ({ENTRY})}})"))?;
            Ok((Persistent::save(ctx, script), Persistent::save(ctx, is_unchanged)))
        })?;
        Ok(Self { script, is_unchanged, realm })
    }

    pub fn call(&self, call: &Call) -> Result<Answer, CodecError> {
        self.realm.run(|ctx| {
            let begin = self.script.clone().restore(ctx)?;
            let entry = begin.call(())?;
            answers::call(ctx, entry, call)
        })
    }

    /// Whether the call has left nothing.
    pub fn is_unchanged(&self) -> bool {
        let unchanged = self.realm.run(|ctx| Ok(self.is_unchanged.clone().restore(ctx)?.call::<_, bool>(())?));
        !self.realm.runtime.is_job_pending() && unchanged.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::js::Input;

    const SCRIPT: &str = "var seen = [], loop = { seen }; seen.push(loop); function decodeUplink(input) { \
                          seen.push(new Error('x'), Buffer.from(input.bytes)); return { data: { n: seen.length } } }";

    fn call() -> Call {
        let values = json!({ "bytes": [1, 2], "fPort": 1, "variables": {} }).to_string();
        Call::Decode(Input { values, received_at: Some(0), f_port: 1 })
    }

    #[test]
    fn an_engine_that_is_kept_stays_as_it_was_and_as_large() {
        let still = Still::new(Limits::default(), SCRIPT).unwrap();
        let mut sizes = Vec::new();
        for _ in 0..5 {
            for _ in 0..400 {
                let object = still.call(&call()).unwrap().object().unwrap();
                assert_eq!(json!(object), json!({"n": 3.0}));
                assert!(still.is_unchanged());
            }
            still.realm.runtime.run_gc();
            sizes.push(still.realm.runtime.memory_usage().malloc_size);
        }
        assert!(sizes[4] < sizes[0] + 20_000, "{sizes:?}");
    }

    /// Setters of the language's own objects may keep what they are given where nobody sees it. These only throw, or set a property of the
    /// object that they are called on.
    #[test]
    fn no_setter_of_the_engine_keeps_anything() {
        let still = Still::new(Limits::default(), "Buffer").unwrap();
        let found: Vec<String> = still
            .realm
            .run(|ctx| {
                let names = "const found = []; const seen = new Set([globalThis]);
                    const look = (object, name) => {
                      for (const key of Reflect.ownKeys(object)) {
                        const property = Object.getOwnPropertyDescriptor(object, key);
                        const path = name + '.' + String(key);
                        if (property.set) found.push(path);
                        const value = property.value;
                        if (value && (typeof value === 'object' || typeof value === 'function') && !seen.has(value)) {
                          seen.add(value);
                          look(value, path);
                        }
                      }
                    };
                    look(globalThis, 'globalThis'); found";
                Ok(script(ctx, names)?)
            })
            .unwrap();
        let harmless = ["__proto__", "Symbol(Symbol.toStringTag)", "constructor", "stack", "caller", "arguments"];
        let odd: Vec<_> =
            found.iter().filter(|path| !harmless.iter().any(|name| path.ends_with(&format!(".{name}")))).collect();
        assert!(odd.is_empty(), "{odd:?} may keep something from one call to the next");
        assert!(found.iter().any(|path| path.ends_with("__proto__")), "nothing was looked at");
    }
}
