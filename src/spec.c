/*-------------------------------------------------------------------------
 *
 * spec.c
 *		The parameters of add_task, checked.
 *
 * add_task receives them as arguments, add_tasks as the keys of JSON objects;
 * both end up here as the same row of values.  NULL means the default
 * everywhere.  What other functions take, too, api_checks.c checks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "taskshed.h"

static const struct
{
	const char *name;
	Oid			type;
}			spec_params[ADD_NPARAMS] =

{
	[ADD_CALLBACK] = {"callback", TEXTOID},
	[ADD_RUN_AT] = {"run_at", TIMESTAMPTZOID},
	[ADD_KWARGS] = {"kwargs", JSONBOID},
	[ADD_RUN_TYPE] = {"run_type", TEXTOID},
	[ADD_EVERY] = {"every", INTERVALOID},
	[ADD_TASK_ID] = {"task_id", TEXTOID},
	[ADD_GROUP_ID] = {"group_id", TEXTOID},
	[ADD_PAUSED] = {"paused", BOOLOID},
	[ADD_CATCH_UP] = {"catch_up", TEXTOID},
	[ADD_REPLACE_EXISTING] = {"replace_existing", BOOLOID},
	[ADD_SCHEDULE] = {"schedule", TEXTOID},
	[ADD_TIMEZONE] = {"timezone", TEXTOID},
	[ADD_UNTIL] = {"until", TIMESTAMPTZOID},
	[ADD_MAX_RUNS] = {"max_runs", INT4OID},
	[ADD_START_WITHIN] = {"start_within", INTERVALOID},
	[ADD_TIMEOUT] = {"timeout", INTERVALOID},
	[ADD_MAX_ATTEMPTS] = {"max_attempts", INT4OID},
	[ADD_RETRY_DELAY] = {"retry_delay", INTERVALOID},
	[ADD_RETRY_BACKOFF] = {"retry_backoff", FLOAT8OID},
	[ADD_RETRY_MAX_DELAY] = {"retry_max_delay", INTERVALOID},
	[ADD_HISTORY] = {"history", TEXTOID},
	[ADD_OWNER] = {"owner", NAMEOID},
	[ADD_VALIDATE] = {"validate", BOOLOID}
};

/* The parameters as the columns of a row, for jsonb_to_record. */
TupleDesc
spec_tupdesc(void)
{
	TupleDesc	desc = CreateTemplateTupleDesc(ADD_NPARAMS);

	for (int i = 0; i < ADD_NPARAMS; i++)
		TupleDescInitEntry(desc, i + 1, spec_params[i].name, spec_params[i].type, -1, 0);
	return desc;
}

/* Refuses keys of a JSON object that are no parameters: 22023. */
void
spec_check_keys(Jsonb *object)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	value;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *key;
		bool		known = false;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(value.val.string.val, value.val.string.len);
		for (int i = 0; !known && i < ADD_NPARAMS; i++)
			known = (strcmp(key, spec_params[i].name) == 0);
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown key \"%s\"", key),
					 strcmp(key, "interval") == 0 ? errhint("The key is named \"every\".") :
					 strcmp(key, "coalesce") == 0 ? errhint("The key is named \"catch_up\".") :
					 errhint("The keys are the parameters of taskshed.add_task.")));
		pfree(key);
	}
}

static char *
spec_choice(const char *param, Datum value, const char *const *choices, const char *list)
{
	char	   *given = TextDatumGetCString(value);

	for (; *choices != NULL; choices++)
	{
		if (strcmp(given, *choices) == 0)
			return given;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: \"%s\"", param, given),
			 errhint("It can be %s.", list)));
}

static Jsonb *
spec_kwargs(const Datum *values, const bool *nulls)
{
	Jsonb	   *kwargs;

	if (nulls[ADD_KWARGS])
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	kwargs = DatumGetJsonbP(values[ADD_KWARGS]);
	if (!JB_ROOT_IS_OBJECT(kwargs))
	{
		JsonbValue	scalar;
		bool		is_string = JB_ROOT_IS_SCALAR(kwargs) &&
		JsonbExtractScalar(&kwargs->root, &scalar) && scalar.type == jbvString;

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kwargs must be a JSON object"),
				 is_string ?
				 errhint("It is a JSON string: it looks as if the object was encoded twice.") :
				 errhint("Its keys are the names of the callback's arguments.")));
	}
	return kwargs;
}

/*
 * The length of an interval in microseconds; months count as 30 days, days as
 * 24 hours.  22008 if that is out of range.
 */
int64
spec_interval_usecs(const Interval *interval)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		usecs;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs))
		ereport(ERROR,
				(errcode(ERRCODE_INTERVAL_FIELD_OVERFLOW),
				 errmsg("interval out of range")));
	return usecs;
}

/* An interval that must not be negative: 22023. */
static Interval *
spec_duration(const Datum *values, const bool *nulls, int param)
{
	Interval   *interval;

	if (nulls[param])
		return NULL;
	interval = DatumGetIntervalP(values[param]);
	if (spec_interval_usecs(interval) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", spec_params[param].name)));
	return interval;
}

/* A number that must be at least low: 22023; otherwise if not given. */
static int
spec_number(const Datum *values, const bool *nulls, int param, int low, int otherwise)
{
	int			number;

	if (nulls[param])
		return otherwise;
	number = DatumGetInt32(values[param]);
	if (number < low)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least %d", spec_params[param].name, low)));
	return number;
}

/*
 * When a task recurs, if it does.  One with a schedule begins at the schedule's
 * next time unless it is told when.
 */
static void
spec_times(TaskSpec *spec, const Datum *values, const bool *nulls)
{
	static const char *const run_types[] = {"once", "recurring", NULL};
	Calendar   *calendar = &spec->calendar;

	calendar->zone = spec_zone(nulls[ADD_TIMEZONE] ? NULL :
							   TextDatumGetCString(values[ADD_TIMEZONE]));
	spec->timezone = pg_get_timezone_name(calendar->zone);
	spec->recurring = !nulls[ADD_EVERY] || !nulls[ADD_SCHEDULE];
	if (!nulls[ADD_RUN_TYPE])
	{
		char	   *run_type = spec_choice("run_type", values[ADD_RUN_TYPE], run_types,
										   "\"once\" or \"recurring\"");
		bool		recurring = (strcmp(run_type, "recurring") == 0);

		if (recurring && !spec->recurring)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a recurring task needs an interval or a schedule"),
					 errhint("Give it with every or schedule, as in every => '10 minutes'.")));
		if (!recurring && spec->recurring)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a task with run_type \"once\" cannot have an interval or a schedule"),
					 errhint("Leave out every and schedule, or run_type.")));
	}

	if (!nulls[ADD_EVERY] && !nulls[ADD_SCHEDULE])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("every and schedule cannot both be given")));
	if (!nulls[ADD_EVERY])
	{
		spec->every = DatumGetIntervalP(values[ADD_EVERY]);
		recurrence_check_interval(spec->every);
	}
	if (!nulls[ADD_SCHEDULE])
	{
		char	   *schedule = TextDatumGetCString(values[ADD_SCHEDULE]);
		TimestampTz next;

		spec->schedule = DatumGetTextPP(values[ADD_SCHEDULE]);
		calendar->has_schedule = true;
		cron_check(schedule, &calendar->schedule);
		if (!spec->has_run_at && !calendar_next(calendar, GetCurrentTimestamp(), &next))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("schedule \"%s\" has no time to come in time zone \"%s\"",
							schedule, spec->timezone)));
	}
}

/* When a task runs first. */
TimestampTz
spec_first_run(const TaskSpec *spec, TimestampTz now)
{
	TimestampTz first = now;

	if (spec->has_run_at)
		return spec->run_at;
	if (spec->schedule != NULL && !calendar_next(&spec->calendar, now, &first))
		first = now;
	return first;
}

/* What limits a task's runs, has them tried again and recorded. */
static void
spec_limits(TaskSpec *spec, const Datum *values, const bool *nulls)
{
	static const char *const histories[] = {"all", "errors", "none", NULL};

	spec->has_until = !nulls[ADD_UNTIL];
	if (spec->has_until)
	{
		spec->until = DatumGetTimestampTz(values[ADD_UNTIL]);
		if (spec->until < spec_first_run(spec, GetCurrentTimestamp()))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("until must not be before the first run"),
					 errhint("Such a task would never run.")));
	}
	spec->max_runs = spec_number(values, nulls, ADD_MAX_RUNS, 1, 0);
	spec->start_within = spec_duration(values, nulls, ADD_START_WITHIN);
	spec->timeout = spec_duration(values, nulls, ADD_TIMEOUT);
	spec->max_attempts = spec_number(values, nulls, ADD_MAX_ATTEMPTS, 0, -1);
	spec->retry_delay = spec_duration(values, nulls, ADD_RETRY_DELAY);
	spec->retry_max_delay = spec_duration(values, nulls, ADD_RETRY_MAX_DELAY);
	if (!nulls[ADD_RETRY_BACKOFF])
	{
		spec->retry_backoff = DatumGetFloat8(values[ADD_RETRY_BACKOFF]);
		if (isnan(spec->retry_backoff) || isinf(spec->retry_backoff) || spec->retry_backoff < 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("retry_backoff must be at least 1 and finite")));
	}
	if (!nulls[ADD_HISTORY])
		spec->history = spec_choice("history", values[ADD_HISTORY], histories,
									"\"all\", \"errors\" or \"none\"");
}

/*
 * Turns a row of parameters, in the order of ADD_CALLBACK and so on, into a
 * TaskSpec in the current memory context.  The values must stay where they
 * are.  Errors: 22023 and 22001 as documented for add_task, 42501 and 42704
 * about the owner.
 */
void
spec_build(TaskSpec *spec, const Datum *values, const bool *nulls)
{
	static const char *const catch_ups[] = {"coalesce", "all", "skip", NULL};

	memset(spec, 0, sizeof(*spec));

	if (nulls[ADD_CALLBACK])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("callback must not be null"),
				 errhint("Give the name of the function to be called.")));
	spec->callback = TextDatumGetCString(values[ADD_CALLBACK]);

	if (!nulls[ADD_RUN_AT])
	{
		spec->has_run_at = true;
		spec->run_at = DatumGetTimestampTz(values[ADD_RUN_AT]);
		spec_check_run_at(spec->run_at);
	}
	spec->kwargs = spec_kwargs(values, nulls);

	spec_times(spec, values, nulls);

	if (!nulls[ADD_TASK_ID])
	{
		spec->task_id = DatumGetTextPP(values[ADD_TASK_ID]);
		spec_check_id("task_id", spec->task_id);
	}
	if (!nulls[ADD_GROUP_ID])
	{
		spec->group_id = DatumGetTextPP(values[ADD_GROUP_ID]);
		spec_check_id("group_id", spec->group_id);
	}
	spec->has_paused = !nulls[ADD_PAUSED];
	spec->paused = spec->has_paused && DatumGetBool(values[ADD_PAUSED]);
	spec->catch_up = nulls[ADD_CATCH_UP] ? "coalesce" :
		spec_choice("catch_up", values[ADD_CATCH_UP], catch_ups,
					"\"coalesce\", \"all\" or \"skip\"");
	spec_limits(spec, values, nulls);
	spec->replace_existing = nulls[ADD_REPLACE_EXISTING] ||
		DatumGetBool(values[ADD_REPLACE_EXISTING]);
	spec->owner = spec_owner(nulls[ADD_OWNER] ? NULL :
							 NameStr(*DatumGetName(values[ADD_OWNER])));
	spec_check_login(spec->owner);
	spec->validate = nulls[ADD_VALIDATE] || DatumGetBool(values[ADD_VALIDATE]);
}
