//! Medians and their uncertainty. Ratios are taken between systems inside one repetition, then summarized.

use serde::Serialize;

/// A value measured several times: median and 95 % bootstrap interval of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// In the order they were measured.
    pub samples: Vec<f64>,
}

const RESAMPLES: usize = 4000;

impl Summary {
    /// Of at least one sample.
    pub fn of(samples: Vec<f64>) -> Summary {
        // The same resampling for the same samples: a report can be reproduced from its raw values.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let resample = samples.iter().map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    samples[(random % samples.len() as u64) as usize]
                });
                median(resample.collect())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |quantile: f64| medians[((RESAMPLES - 1) as f64 * quantile).round() as usize];
        Summary { median: median(samples.clone()), low: at(0.025), high: at(0.975), samples }
    }

    /// Ratios of samples measured in the same repetition.
    pub fn ratio(over: &Summary, under: &Summary) -> Summary {
        Summary::of(over.samples.iter().zip(&under.samples).map(|(over, under)| over / under).collect())
    }

    /// A value measured once.
    pub fn single(value: f64) -> Summary {
        Summary { median: value, low: value, high: value, samples: vec![value] }
    }
}

/// The middle one, or the mean of the two in the middle. Not a number when there is none.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// With linear interpolation between neighbours.
pub fn quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * quantile;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Of the line that fits best, by least squares: how much `values` grow when `places` grow by one.
pub fn slope(places: &[f64], values: &[f64]) -> f64 {
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (place, value) = (mean(places), mean(values));
    let common: f64 = places.iter().zip(values).map(|(x, y)| (x - place) * (y - value)).sum();
    common / places.iter().map(|x| (x - place).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert!((slope(&[1.0, 2.0, 4.0, 8.0], &[5.0, 7.0, 11.0, 19.0]) - 2.0).abs() < 1e-9);
        assert!((slope(&[0.0, 1.0, 2.0], &[1.0, 0.0, 2.0]) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile((0..=100).map(f64::from).collect(), 0.95), 95.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn an_interval_holds_the_median_and_narrows_with_agreement() {
        let wide = Summary::of(vec![1.0, 5.0, 9.0, 2.0, 8.0]);
        assert!(wide.low < wide.median && wide.median < wide.high);
        let narrow = Summary::of(vec![5.0; 7]);
        assert_eq!((narrow.low, narrow.median, narrow.high), (5.0, 5.0, 5.0));
    }

    #[test]
    fn ratios_are_paired() {
        let (over, under) = (Summary::of(vec![2.0, 40.0, 6.0]), Summary::of(vec![1.0, 20.0, 3.0]));
        assert_eq!(Summary::ratio(&over, &under).samples, [2.0, 2.0, 2.0]);
    }
}
