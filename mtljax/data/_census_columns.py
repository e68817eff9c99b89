"""The raw format of Census-Income (KDD): its columns, and how a row is read."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

from mtljax.data import _raw

#: The files of the two splits, as UCI names them (gzipped there).
FILES = {'train': 'census-income.data', 'test': 'census-income.test'}
#: Rows of each.
ROWS = {'train': 199_523, 'test': 99_762}
#: SHA-256 of each, not gzipped, as a package registry has it.
SHA256 = {
  'train': '3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86',
  'test': '98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c',
}

#: The 42 columns of a row, in order.
COLUMNS = (
  'age',
  'class_of_worker',
  'detailed_industry_recode',
  'detailed_occupation_recode',
  'education',
  'wage_per_hour',
  'enroll_in_edu_inst_last_wk',
  'marital_stat',
  'major_industry_code',
  'major_occupation_code',
  'race',
  'hispanic_origin',
  'sex',
  'member_of_a_labor_union',
  'reason_for_unemployment',
  'full_or_part_time_employment_stat',
  'capital_gains',
  'capital_losses',
  'dividends_from_stocks',
  'tax_filer_stat',
  'region_of_previous_residence',
  'state_of_previous_residence',
  'detailed_household_and_family_stat',
  'detailed_household_summary_in_household',
  'instance_weight',
  'migration_code_change_in_msa',
  'migration_code_change_in_reg',
  'migration_code_move_within_reg',
  'live_in_this_house_1_year_ago',
  'migration_prev_res_in_sunbelt',
  'num_persons_worked_for_employer',
  'family_members_under_18',
  'country_of_birth_father',
  'country_of_birth_mother',
  'country_of_birth_self',
  'citizenship',
  'own_business_or_self_employed',
  'fill_inc_questionnaire_for_veterans_admin',
  'veterans_benefits',
  'weeks_worked_in_year',
  'year',
  'income',
)
#: The features that are numbers.
NUMERIC = (
  'age',
  'wage_per_hour',
  'capital_gains',
  'capital_losses',
  'dividends_from_stocks',
  'num_persons_worked_for_employer',
  'weeks_worked_in_year',
)
#: The features that are names, or numbers that stand for names.
CATEGORICAL = tuple(
  name
  for name in COLUMNS
  if name not in (*NUMERIC, 'instance_weight', 'income')
)
INCOMES = ('- 50000.', '50000+.')
NEVER_MARRIED = 'Never married'
#: The values of ``education`` that are a bachelor's degree or more.
COLLEGE = (
  'Bachelors degree(BA AB BS)',
  'Masters degree(MA MS MEng MEd MSW MBA)',
  'Prof school degree (MD DDS DVM LLB JD)',
  'Doctorate degree(PhD EdD)',
)


def find(folder: str | os.PathLike[str], split: str) -> pathlib.Path | None:
  """The raw file of a split in a folder, gzipped or not; None: not there."""
  return _raw.find(folder, FILES[split])


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, str]]:
  """The rows of a raw file, values by column, without the spaces around.

  A missing value is ``'?'``.

  Raises:
    ValueError: the file is damaged, a row has not 42 columns, or its last is no
      income.
  """
  for number, line in enumerate(_raw.lines(path, 'census'), 1):
    if not line.strip():
      continue
    values = [value.strip() for value in line.split(',')]
    if len(values) != len(COLUMNS) or values[-1] not in INCOMES:
      raise ValueError(
        f'{path}, line {number}: {len(values)} columns, the last '
        f'{values[-1]!r}; a row of Census-Income (KDD) has {len(COLUMNS)}, '
        f'the last {" or ".join(map(repr, INCOMES))}.'
      )
    yield dict(zip(COLUMNS, values, strict=True))
