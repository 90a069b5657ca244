//! Scores of all classes together that follow from the counts: correlation, and agreement of classes
//! that are in an order.

use super::Evaluation;

impl Evaluation {
    /// Examples and predictions of every class.
    fn margins(&self) -> (Vec<f64>, Vec<f64>) {
        let truths = self.confusion.iter().map(|row| row.iter().sum::<u64>() as f64).collect();
        let guessed =
            |class: usize| -> u64 { self.confusion.iter().filter_map(|row| row.get(class)).sum() };
        (truths, (0..self.confusion.len()).map(|class| guessed(class) as f64).collect())
    }

    /// Every count with the distance of its prediction from its truth, in classes.
    fn distances(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let row = |(truth, row): (usize, &'_ Vec<u64>)| {
            let cells = row.iter().enumerate();
            cells.map(|(guess, count)| (guess.abs_diff(truth) as f64, *count)).collect::<Vec<_>>()
        };
        self.confusion.iter().enumerate().flat_map(row)
    }

    /// Matthews correlation coefficient of any number of classes, -1 to 1 (Gorodkin 2004, the form of
    /// scikit-learn); 0 where truth or prediction is always the same class.
    pub fn mcc(&self) -> f64 {
        let (truths, guesses) = self.margins();
        let total = self.num_examples() as f64;
        let right: f64 =
            self.confusion.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum::<u64>() as f64;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let covariance = right * total - dot(&truths, &guesses);
        let variances =
            (total * total - dot(&guesses, &guesses)) * (total * total - dot(&truths, &truths));
        if variances > 0.0 { covariance / variances.sqrt() } else { 0.0 }
    }

    /// Share of examples whose class or one beside it was predicted; for classes in an order.
    pub fn off_by_one_accuracy(&self) -> f64 {
        let near: u64 =
            self.distances().filter(|(distance, _)| *distance <= 1.0).map(|(_, count)| count).sum();
        near as f64 / self.num_examples().max(1) as f64
    }

    /// Mean distance of prediction and truth, in classes; for classes in an order.
    pub fn mean_absolute_error(&self) -> f64 {
        let sum: f64 = self.distances().map(|(distance, count)| distance * count as f64).sum();
        sum / self.num_examples().max(1) as f64
    }

    /// Cohen's kappa with squared distances (Cohen 1968), -1 to 1; for classes in an order. Not a
    /// number where truth and prediction are one and the same class throughout.
    pub fn quadratic_kappa(&self) -> f64 {
        let (truths, guesses) = self.margins();
        let observed: f64 =
            self.distances().map(|(distance, count)| distance * distance * count as f64).sum();
        let mut expected = 0.0;
        for (truth, examples) in truths.iter().enumerate() {
            for (guess, predictions) in guesses.iter().enumerate() {
                let distance = truth.abs_diff(guess) as f64;
                expected += distance * distance * examples * predictions;
            }
        }
        1.0 - observed * self.num_examples() as f64 / expected
    }
}
