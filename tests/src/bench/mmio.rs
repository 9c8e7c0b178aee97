//! Register round trips of two servers.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use super::{Interval, Output, paired};
use crate::client::Client;
use crate::report::seconds;

/// A register: region, offset and width.
#[derive(Clone, Copy, Debug)]
struct Register {
    region: u32,
    offset: u64,
    width: usize,
}

fn parse_register(text: &str) -> Result<Register, String> {
    let wrong = || format!("`{text}` is not REGION:OFFSET:BYTES, for example 0:0x10:4");
    let parts: Vec<&str> = text.split(':').collect();
    let [region, offset, width] = parts.as_slice() else {
        return Err(wrong());
    };
    let offset = match offset.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => offset.parse(),
    };
    let register = Register {
        region: region.parse().map_err(|_| wrong())?,
        offset: offset.map_err(|_| wrong())?,
        width: width.parse().map_err(|_| wrong())?,
    };
    if [1, 2, 4, 8].contains(&register.width) {
        Ok(register)
    } else {
        Err(wrong())
    }
}

/// Options of `bench mmio`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Socket of the server that is measured.
    #[arg(long, value_name = "PATH")]
    server: PathBuf,
    /// The register that is read there.
    #[arg(long, default_value = "0:0:4", value_parser = parse_register, value_name = "REGION:OFFSET:BYTES")]
    register: Register,
    /// Socket of the server it is compared with.
    #[arg(long, value_name = "PATH")]
    baseline: PathBuf,
    /// The register that is read there. libvfio-user's sample `server` has plain memory in region 1.
    #[arg(long, default_value = "1:0:4", value_parser = parse_register, value_name = "REGION:OFFSET:BYTES")]
    baseline_register: Register,
    /// Interleaved pairs.
    #[arg(long, default_value_t = 101, value_name = "N")]
    pairs: usize,
    /// Round trips of each half of a pair.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    calls: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Figures {
    server: Interval,
    baseline: Interval,
    ratio: Interval,
    pairs: usize,
    calls: u32,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let server = Client::connect(&args.server)?;
    let baseline = Client::connect(&args.baseline)?;
    let mut clients = (server, baseline);
    let samples = paired(
        &mut clients,
        args.pairs,
        |clients| round_trips(&mut clients.0, args.register, args.calls),
        |clients| round_trips(&mut clients.1, args.baseline_register, args.calls),
    )?;
    let interval = |of: &dyn Fn(&(f64, f64)) -> f64| {
        Interval::of(&samples.iter().map(of).collect::<Vec<_>>()).context("--pairs must be at least 1")
    };
    let figures = Figures {
        server: interval(&|pair| pair.0)?,
        baseline: interval(&|pair| pair.1)?,
        ratio: interval(&|pair| pair.0 / pair.1)?,
        pairs: args.pairs,
        calls: args.calls,
    };
    let table = format!(
        "register round trip, {} pairs of {} calls\n  server    {}\n  baseline  {}\n  ratio     {:.3} [{:.3}, {:.3}]\n",
        figures.pairs,
        figures.calls,
        seconds(figures.server.median),
        seconds(figures.baseline.median),
        figures.ratio.median,
        figures.ratio.low,
        figures.ratio.high
    );
    args.output.write(&table, &figures)
}

/// Seconds of one round trip.
fn round_trips(client: &mut Client, register: Register, calls: u32) -> crate::client::Result<f64> {
    let mut data = [0; 8];
    let clock = Instant::now();
    for _ in 0..calls {
        client.region_read(register.region, register.offset, &mut data[..register.width])?;
    }
    Ok(clock.elapsed().as_secs_f64() / f64::from(calls))
}

#[cfg(test)]
mod tests {
    use super::parse_register;

    #[test]
    fn registers_have_three_parts() {
        let register = parse_register("1:0x10:8").expect("a register");
        assert_eq!((register.region, register.offset, register.width), (1, 16, 8));
        assert!(parse_register("1:0x10").is_err());
        assert!(parse_register("0:0:3").is_err());
    }
}
