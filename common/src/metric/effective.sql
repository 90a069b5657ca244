WITH points AS (
    SELECT *
    FROM read_parquet('muster-data/experiments/*/trials/*/metrics/*.parquet', union_by_name = true)
),
attempts AS (
    SELECT trial, attempt, min(resumed_from) AS resumed_from
    FROM points
    GROUP BY trial, attempt
)
SELECT * EXCLUDE (superseded)
FROM points
WHERE NOT EXISTS (
    SELECT 1
    FROM attempts AS later
    WHERE later.trial = points.trial
      AND later.attempt > points.attempt
      AND later.resumed_from < points.step
)
QUALIFY row_number() OVER (
    PARTITION BY trial, rank, step, name
    ORDER BY attempt DESC, recorded_at DESC, value DESC
) = 1
ORDER BY trial, rank, step, name
