"""The training jobs."""

from raptor.runs.callbacks import Callback as Callback
from raptor.runs.callbacks import RunContext as RunContext
from raptor.runs.job import RunSummary as RunSummary
from raptor.training.direct.config import TrainDirectConfig as TrainDirectConfig
from raptor.training.direct.job import TrainDirectSummary as TrainDirectSummary
from raptor.training.direct.job import load_run_config as load_run_config
from raptor.training.direct.job import train_direct as train_direct
from raptor.training.distillation.config import EnvDistillConfig as EnvDistillConfig
from raptor.training.distillation.config import PostTrainConfig as PostTrainConfig
from raptor.training.distillation.env_job import EnvDistillSummary as EnvDistillSummary
from raptor.training.distillation.env_job import distill as distill
from raptor.training.distillation.env_job import load_env_distill_config as load_env_distill_config
from raptor.training.distillation.job import PostTrainSummary as PostTrainSummary
from raptor.training.distillation.job import load_post_train_config as load_post_train_config
from raptor.training.distillation.job import post_train as post_train
from raptor.training.distillation.teachers import TeacherFile as TeacherFile
from raptor.training.teachers.job import PreTrainConfig as PreTrainConfig
from raptor.training.teachers.job import PreTrainSummary as PreTrainSummary
from raptor.training.teachers.job import load_pre_train_config as load_pre_train_config
from raptor.training.teachers.job import pre_train as pre_train
