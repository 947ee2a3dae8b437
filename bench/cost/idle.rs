//! What servers cost that have nothing to do.

use std::time::Duration;

use crate::{
    Outcome, Plan,
    process::Process,
    servers::{Servers, Up},
};

/// What a start leaves behind is over by then, and threads that were only needed for it are gone.
const SETTLE: Duration = Duration::from_secs(15);
const TRACED: Duration = Duration::from_secs(5);

pub async fn run(plan: &Plan) -> Outcome<()> {
    let length = Duration::from_secs(if plan.long { 60 } else { 20 });
    let up = Up::start(plan).await?;
    let servers = Servers::start(plan, 1, None).await?;
    tokio::time::sleep(SETTLE).await;
    let processes: Vec<(&str, &Process)> = vec![
        ("`limpet up`", &up.process),
        ("`limpet balancer`", &servers.balancer),
        ("`limpet worker`, SQLite", servers.workers.first().ok_or("no worker")?),
    ];
    let before = processes.iter().map(|(_, process)| process.used()).collect::<Outcome<Vec<_>>>()?;
    tokio::time::sleep(length).await;
    let spent = processes.iter().zip(&before).map(|((_, process), before)| process.since(before));
    let spent = spent.collect::<Outcome<Vec<_>>>()?;
    println!("\n### Idle\n");
    println!("| process | % of a core | context switches/s | memory MB | system calls/s |");
    println!("|---|---|---|---|---|");
    let traces: Vec<_> = processes.iter().map(|(_, process)| process.trace()).collect();
    tokio::time::sleep(TRACED).await;
    for (((name, process), spent), trace) in processes.iter().zip(spent).zip(traces) {
        let calls = trace.map(|trace| trace.stop()).unwrap_or_default();
        let a_second = |count: u64| count as f64 / TRACED.as_secs_f64();
        let most: Vec<String> =
            calls.iter().take(6).map(|(name, count)| format!("{name} {:.1}", a_second(*count))).collect();
        let all = a_second(calls.iter().map(|(_, count)| count).sum());
        println!(
            "| {name} | {:.2} | {:.0} | {:.0} | {all:.0}: {} |",
            spent.share(),
            spent.switches_a_second(),
            process.memory(),
            most.join(", ")
        );
    }
    Ok(())
}
