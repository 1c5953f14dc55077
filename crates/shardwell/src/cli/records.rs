//! `shardwell records decode` and `encode`: aggregated records as lines of JSON, for looking at what is in a stream.

use std::io::{self, BufRead, BufWriter, Write};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};
use shardwell::Bytes;
use shardwell::core::aggregation::{
    AddError, AggregatedRecord, Aggregator, Deaggregated, KclDeaggregated, Limits, Outer, UserRecord, deaggregate,
    deaggregate_like_kcl, parse_explicit_hash_key,
};
use shardwell::core::{HashKeyRange, PartitionKey};

#[derive(Args, Debug)]
pub(super) struct DecodeArgs {
    /// Read as the Java KCL reads, including what it loses of broken records; losses go to standard error
    #[arg(long)]
    kcl: bool,
}

#[derive(Args, Debug)]
pub(super) struct EncodeArgs {
    /// How large a record may become, payload and partition key
    #[arg(long, value_name = "BYTES", default_value_t = Limits::DEFAULT_RECORD_BYTES)]
    max_record_bytes: usize,
}

/// A record as it is read, aggregated or not. Other fields are passed over, so that lines can come from anywhere.
#[derive(Deserialize)]
struct InputLine {
    data: String,
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(default)]
    explicit_hash_key: Option<String>,
}

#[derive(Serialize)]
struct OutputLine<'a> {
    data: String,
    partition_key: Option<&'a str>,
    explicit_hash_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_sequence_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classification: Option<&'a str>,
}

/// A record after its line was read.
struct Input {
    data: Bytes,
    partition_key: Option<String>,
    explicit_hash_key: Option<u128>,
}

pub(super) fn decode(args: &DecodeArgs) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = each_line(io::stdin().lock(), &mut io::stderr(), |input, notes| {
        let outer = Outer {
            partition_key: input.partition_key.map(|key| PartitionKey::from(key).into()),
            explicit_hash_key: input.explicit_hash_key,
        };
        if args.kcl {
            decode_like_kcl(input.data, outer, &mut out, notes)
        } else {
            decode_strictly(input.data, outer, &mut out, notes)
        }
    });
    finish(result, &mut out)
}

fn decode_strictly(data: Bytes, outer: Outer, out: &mut impl Write, notes: &mut Vec<String>) -> Result<()> {
    let deaggregated = deaggregate(data, outer);
    let kind = deaggregated.classification().as_str();
    let record = match deaggregated {
        Deaggregated::Aggregated(aggregate) => {
            return aggregate.into_iter().try_for_each(|record| write_user_record(out, &record, kind));
        }
        Deaggregated::Empty { .. } => {
            notes.push("an aggregated record without user records".into());
            return Ok(());
        }
        Deaggregated::Malformed { record, error } => {
            notes.push(format!("claims to be aggregated and cannot be read: {error}; shown as it is"));
            record
        }
        Deaggregated::NotAggregated { record, .. } => record,
        _ => bail!("a kind of record that this version of the command does not know"),
    };
    write_raw(out, &record.data, &record.outer, kind)
}

fn decode_like_kcl(data: Bytes, outer: Outer, out: &mut impl Write, notes: &mut Vec<String>) -> Result<()> {
    match deaggregate_like_kcl(data, outer, HashKeyRange::FULL) {
        KclDeaggregated::Raw { record, classification } => {
            write_raw(out, &record.data, &record.outer, classification.as_str())
        }
        KclDeaggregated::UserRecords { records, lost } => {
            if let Some(lost) = lost {
                notes.push(format!("the KCL drops {} user records, because of number {}", lost.records, lost.at));
            }
            records.into_iter().try_for_each(|record| write_user_record(out, &record, "aggregated"))
        }
        _ => bail!("a kind of record that this version of the command does not know"),
    }
}

pub(super) fn encode(args: &EncodeArgs) -> Result<()> {
    let limits = Limits::new(args.max_record_bytes).context("--max-record-bytes")?;
    let mut aggregator = Aggregator::new(limits);
    let mut out = BufWriter::new(io::stdout().lock());
    let result = each_line(io::stdin().lock(), &mut io::stderr(), |input, _| {
        let key = input.partition_key.as_deref().context("a user record needs a partition key")?;
        match aggregator.try_add(key, input.explicit_hash_key, &input.data) {
            Err(AddError::NoRoom) => {
                write_aggregated(&mut out, aggregator.finish())?;
                Ok(aggregator.try_add(key, input.explicit_hash_key, &input.data)?)
            }
            other => Ok(other?),
        }
    });
    let result = result.and_then(|wrong| {
        write_aggregated(&mut out, aggregator.finish())?;
        Ok(wrong)
    });
    finish(result, &mut out)
}

/// Reads every line and does something with it. What is wrong with a line goes to `errors` with its number, and the next
/// line follows. Answers how many lines were wrong.
fn each_line(
    input: impl BufRead,
    errors: &mut impl Write,
    mut each: impl FnMut(Input, &mut Vec<String>) -> Result<()>,
) -> Result<u64> {
    let mut wrong = 0;
    for (number, line) in (1..).zip(input.split(b'\n')) {
        let line = line.context("cannot read standard input")?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut notes = Vec::new();
        let result = parse(&line).and_then(|input| each(input, &mut notes));
        for note in notes {
            writeln!(errors, "line {number}: {note}")?;
        }
        match result {
            Ok(()) => {}
            Err(error) if error.is::<io::Error>() => return Err(error),
            Err(error) => {
                wrong += 1;
                writeln!(errors, "line {number}: {error:#}")?;
            }
        }
    }
    Ok(wrong)
}

fn parse(line: &[u8]) -> Result<Input> {
    let line: InputLine = serde_json::from_slice(line).context("not a record")?;
    let explicit_hash_key = line.explicit_hash_key.as_deref().map(parse_explicit_hash_key).transpose();
    Ok(Input {
        data: STANDARD.decode(&line.data).context("`data` is not base64")?.into(),
        partition_key: line.partition_key,
        explicit_hash_key: explicit_hash_key.context("`explicit_hash_key`")?,
    })
}

fn write_user_record(out: &mut impl Write, record: &UserRecord, kind: &str) -> Result<()> {
    write_line(
        out,
        &OutputLine {
            data: STANDARD.encode(&record.data),
            partition_key: Some(&record.partition_key),
            explicit_hash_key: record.explicit_hash_key.map(|key| key.to_string()),
            sub_sequence_number: Some(record.sub_sequence_number),
            classification: Some(kind),
        },
    )
}

fn write_raw(out: &mut impl Write, data: &Bytes, outer: &Outer, kind: &str) -> Result<()> {
    write_line(
        out,
        &OutputLine {
            data: STANDARD.encode(data),
            partition_key: outer.partition_key.as_deref(),
            explicit_hash_key: outer.explicit_hash_key.map(|key| key.to_string()),
            sub_sequence_number: Some(0),
            classification: Some(kind),
        },
    )
}

fn write_aggregated(out: &mut impl Write, record: Option<AggregatedRecord>) -> Result<()> {
    let Some(record) = record else { return Ok(()) };
    write_line(
        out,
        &OutputLine {
            data: STANDARD.encode(&record.data),
            partition_key: Some(&record.partition_key),
            explicit_hash_key: Some(record.explicit_hash_key.to_string()),
            sub_sequence_number: None,
            classification: None,
        },
    )
}

fn write_line(out: &mut impl Write, line: &OutputLine<'_>) -> Result<()> {
    // Not an `io::Error` by itself, which is how the caller tells a broken output from a broken line.
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    Ok(())
}

/// Ends the output, and says how it went. Whoever reads the output may stop at any time: that is no error.
fn finish(result: Result<u64>, out: &mut impl Write) -> Result<()> {
    let result = result.and_then(|wrong| {
        out.flush()?;
        Ok(wrong)
    });
    match result {
        Ok(0) => Ok(()),
        Ok(1) => bail!("1 line could not be read; the others are done"),
        Ok(wrong) => bail!("{wrong} lines could not be read; the others are done"),
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(broken) if broken.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> (Vec<String>, String, u64) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let wrong = each_line(text.as_bytes(), &mut errors, |input, notes| {
            let outer = Outer { partition_key: None, explicit_hash_key: input.explicit_hash_key };
            decode_strictly(input.data, outer, &mut out, notes)
        });
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (text(out).lines().map(str::to_owned).collect(), text(errors), wrong.expect("no output breaks"))
    }

    #[test]
    fn a_broken_line_is_named_and_the_others_are_done() {
        let (out, errors, wrong) = lines("{\"data\":\"YQ==\"}\n\nnonsense\n{\"data\":\"?\"}\n{\"data\":\"Yg==\"}");
        assert_eq!((out.len(), wrong), (2, 2));
        assert!(out[1].contains("\"Yg==\"") && out[1].contains("\"too_short\""), "{}", out[1]);
        assert!(errors.contains("line 3: not a record") && errors.contains("line 4: `data` is not base64"), "{errors}");
    }

    #[test]
    fn a_hash_key_must_be_canonical() {
        let (out, errors, wrong) = lines("{\"data\":\"YQ==\",\"explicit_hash_key\":\"007\"}");
        assert_eq!((out.len(), wrong), (0, 1));
        assert!(errors.starts_with("line 1: `explicit_hash_key`: "), "{errors}");
    }
}
