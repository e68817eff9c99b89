"""Synthetic rows in the raw format of Census-Income (KDD).

No row is a real one: values are drawn from (parts of) the value sets of the
columns, and the income and the marital status depend on age and education, so
that there is something to learn.
"""

import gzip
import pathlib

import numpy as np

VALUES = {
  'class_of_worker': ('Not in universe', 'Private', 'Local government'),
  'detailed_industry_recode': ('0', '33', '43', '4'),
  'detailed_occupation_recode': ('0', '2', '26', '19'),
  'enroll_in_edu_inst_last_wk': ('Not in universe', 'High school'),
  'major_industry_code': ('Not in universe or children', 'Retail trade'),
  'major_occupation_code': ('Not in universe', 'Sales', 'Other service'),
  'race': ('White', 'Black', 'Asian or Pacific Islander', 'Other'),
  'hispanic_origin': ('All other', 'Mexican-American', 'NA'),
  'sex': ('Female', 'Male'),
  'member_of_a_labor_union': ('Not in universe', 'No', 'Yes'),
  'reason_for_unemployment': ('Not in universe', 'Job loser - on layoff'),
  'full_or_part_time_employment_stat': (
    'Children or Armed Forces',
    'Full-time schedules',
  ),
  'tax_filer_stat': ('Nonfiler', 'Joint both under 65', 'Single'),
  'region_of_previous_residence': ('Not in universe', 'South', 'West'),
  'state_of_previous_residence': ('Not in universe', 'California', '?'),
  'detailed_household_and_family_stat': (
    'Householder',
    'Spouse of householder',
  ),
  'detailed_household_summary_in_household': (
    'Householder',
    'Child 18 or older',
  ),
  'migration_code_change_in_msa': ('?', 'Nonmover', 'MSA to MSA'),
  'migration_code_change_in_reg': ('?', 'Nonmover', 'Same county'),
  'migration_code_move_within_reg': ('?', 'Nonmover', 'Same county'),
  'live_in_this_house_1_year_ago': (
    'Not in universe under 1 year old',
    'Yes',
    'No',
  ),
  'migration_prev_res_in_sunbelt': ('?', 'Not in universe', 'No', 'Yes'),
  'family_members_under_18': ('Not in universe', 'Both parents present'),
  'country_of_birth_father': ('United-States', 'Mexico', '?'),
  'country_of_birth_mother': ('United-States', 'Mexico', '?'),
  'country_of_birth_self': ('United-States', 'Mexico', '?'),
  'citizenship': (
    'Native- Born in the United States',
    'Foreign born- Not a citizen of U S',
  ),
  'own_business_or_self_employed': ('0', '2', '1'),
  'fill_inc_questionnaire_for_veterans_admin': ('Not in universe', 'No'),
  'veterans_benefits': ('2', '0', '1'),
  'year': ('94', '95'),
}
EDUCATION = (
  'Children',
  'High school graduate',
  'Some college but no degree',
  'Bachelors degree(BA AB BS)',
  'Doctorate degree(PhD EdD)',
)
MARITAL = ('Never married', 'Married-civilian spouse present', 'Divorced')


def make_row(rng, columns):
  """One row, as a mapping from the columns."""
  row = {name: str(rng.choice(values)) for name, values in VALUES.items()}
  age, education = int(rng.integers(0, 91)), int(rng.integers(len(EDUCATION)))
  married = rng.random() < (age - 15) / 40
  rich = rng.random() < 0.1 + 0.4 * (education > 2) * (age > 30)
  row |= {
    'age': str(age),
    'education': EDUCATION[education],
    'marital_stat': MARITAL[int(married) * int(rng.integers(1, 3))],
    'wage_per_hour': str(rng.choice([0, 500, 1000])),
    'capital_gains': str(rng.choice([0, 15024])),
    'capital_losses': '0',
    'dividends_from_stocks': str(rng.choice([0, 0, 100])),
    'instance_weight': f'{rng.uniform(500, 3000):.2f}',
    'num_persons_worked_for_employer': str(rng.integers(0, 7)),
    'weeks_worked_in_year': str(rng.integers(0, 53)),
    'income': '50000+.' if rich else '- 50000.',
  }
  return {name: row[name] for name in columns}


def write_rows(path, rows):
  """A raw file, gzipped if its name says so."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  text = ''.join(', '.join(row.values()) + '\n' for row in rows)
  with (gzip.open if path.suffix == '.gz' else open)(path, 'wt') as file:
    file.write(text)


def write_raw(data_dir, columns, train=200, test=101):
  """The two raw files in the manual directory of a tfds directory."""
  rng = np.random.default_rng(0)
  rows = {
    'census-income.data': [make_row(rng, columns) for _ in range(train)],
    'census-income.test': [make_row(rng, columns) for _ in range(test)],
  }
  for name, found in rows.items():
    write_rows(
      pathlib.Path(data_dir) / 'downloads' / 'manual' / f'{name}.gz', found
    )
  return list(rows.values())
