/*-------------------------------------------------------------------------
 *
 * api.h
 *		The functions of SQL.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_API_API_H
#define TASKSHED_API_API_H

#include "postgres.h"

#include "utils/array.h"

#include "run/run.h"

/* ------------------------------------------------------------------------
 * zone_names.c
 */
extern pg_tz *zone_by_name(const char *name);
extern char *zone_offsets(pg_tz *zone, TimestampTz now);

/* ------------------------------------------------------------------------
 * api_checks.c
 */
extern void check_writable(const char *function);
extern bool check_is_template(void);
extern void check_warn_if_waiting(void);
extern Oid	check_owner(const char *name);
extern void check_may_act(Oid owner);
extern void check_login(Oid owner);
extern void check_selector(bool no_task_ids, bool no_group_id, const char *for_all);
extern void check_length(const char *what, text *text, int least, int most);
extern void check_run_at(TimestampTz run_at);
pg_noreturn extern void check_not_supported(const char *param);
extern void check_options(const char *param, Jsonb *options, const char *const *names, int n);

/* ------------------------------------------------------------------------
 * named_row.c
 */
typedef struct NamedRow
{
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
} NamedRow;

extern void named_row_begin(NamedRow *row, FunctionCallInfo fcinfo);
extern void named_row_of(NamedRow *row, TupleDesc desc);
extern void named_row_set(NamedRow *row, const char *name, Oid type, Datum value);
extern Datum named_row_datum(const NamedRow *row);

/* ------------------------------------------------------------------------
 * spec.c
 */
/* Parameters of add_task in their order, which are also keys in add_tasks. */
enum
{
#define ADD_TASK_PARAM(number, ...) number,
#include "api/add_task_params.h"
#undef ADD_TASK_PARAM
	ADD_NPARAMS
};

typedef struct SpecParam
{
	const char *name;
	Oid			type;
	AttrNumber	column;			/* has it as it was given; 0 if none does */
	void		(*check) (const struct SpecParam *param, Datum value);	/* or NULL */
	/* for the check: the bounds, or what there is to choose from */
	int			least;
	int			most;
	const struct config_enum_entry *words;
} SpecParam;

/*
 * What add_task was asked for, all but the callback's resolution checked.  What
 * only the task's row has to have is in the values.
 */
typedef struct TaskSpec
{
	const Datum *values;
	const bool *nulls;
	char	   *callback;
	bool		has_run_at;
	TimestampTz run_at;
	Jsonb	   *kwargs;
	bool		recurring;
	bool		lasting;		/* without times of its own */
	Interval   *every;			/* these are NULL if not given */
	text	   *schedule;
	Calendar	calendar;		/* of schedule */
	text	   *task_id;		/* NULL: generate one */
	bool		has_paused;
	bool		paused;
	CatchUp		catch_up;
	bool		has_until;
	TimestampTz until;
	int			max_runs;		/* 0: no limit */
	bool		replace_existing;
	const char *timezone;
	Oid			owner;
	bool		validate;
} TaskSpec;

/* What reading parameters from JSON objects takes. */
typedef struct SpecReader
{
	TupleDesc	desc;			/* the parameters as columns of a record */
	FmgrInfo	to_record;		/* jsonb_to_record, with its cache */
} SpecReader;

extern const SpecParam spec_params[ADD_NPARAMS];

extern void spec_init_reader(SpecReader *reader);
extern void spec_check_keys(Jsonb *object, bool *given);
extern void spec_read(SpecReader *reader, Jsonb *object, pg_tz *zone, Datum *values, bool *nulls);
extern bool spec_has_times(const bool *nulls);
extern void spec_build(TaskSpec *spec, const Datum *values, const bool *nulls, Oid owner,
					   pg_tz *zone, TimestampTz now);
extern TimestampTz spec_first_run(const TaskSpec *spec, TimestampTz now);
extern bool spec_is_over(const TaskSpec *spec, TimestampTz next, int64 run_count);
extern void spec_tell_over(const TaskSpec *spec, TimestampTz next, bool removed);
extern char *spec_check_call(const TaskSpec *spec, const char *name);
extern char *spec_check_hook(const TaskSpec *spec, const char *name);

/* ------------------------------------------------------------------------
 * spec_rows.c
 */
extern void spec_from_task(const TaskRow *task, Datum *values, bool *nulls);
extern void spec_fill_task(TaskRow *row, const TaskSpec *spec);
extern bool spec_same_work(const TaskRow *a, const TaskRow *b, TupleDesc desc);
extern bool spec_same_task(const TaskRow *a, const TaskRow *b, TupleDesc desc);
extern bool spec_same_times(const TaskSpec *spec, const TaskRow *new, const TaskRow *old,
							TupleDesc desc);
extern bool spec_same_status(const TaskRow *new, const TaskRow *old, TupleDesc desc);
extern bool spec_same_until(const TaskRow *new, const TaskRow *old, TupleDesc desc);

/* ------------------------------------------------------------------------
 * api_change.c
 */
/*
 * A change of one task, whose alarm is locked.  What arg is, a time or a role,
 * is between the change and who asks for it.  Returns whether there was
 * anything to change.
 */
typedef bool (*TaskChange) (Store *store, AlarmRow *alarm, int64 arg);

extern bool change_remove(Store *store, AlarmRow *alarm, int64 arg);
extern void change_time(AlarmRow *alarm, TimestampTz run_at);
extern bool change_schedule(Store *store, AlarmRow *alarm, TimestampTz run_at);
extern int	change_name_cmp(const void *a, const void *b);
extern bool change_by_name(Store *store, Oid owner, Datum task_id, TaskChange change, int64 arg);
extern TimestampTz change_due_at(const AlarmRow *alarm);
extern void change_note(const AlarmRow *alarm, TimestampTz was_due_at);
extern int	change_tasks(Store *store, Oid owner, ArrayType *task_ids, text *group_id,
						 TaskChange change, int64 arg);
extern int	change_remove_tasks(Store *store, Oid owner, ArrayType *task_ids, text *group_id);

/* ------------------------------------------------------------------------
 * new_task.c
 */
/* What has become of a task that was to be written. */
typedef enum Written
{
	WRITTEN_NOT,				/* it is not there: its times are over */
	WRITTEN_NEW,
	WRITTEN_AGAIN,				/* one that was there was replaced */
	WRITTEN_KEPT				/* one that was there stays as it is */
} Written;

/* What a task is to run after. */
typedef struct NewParent
{
	struct NewTask *task;		/* of the same call; or NULL */
	int64		id;				/* if not */
	text	   *task_id;
	bool		recurring;
	bool		named;			/* not one of a group */
} NewParent;

/* A task on its way into the tables. */
typedef struct NewTask
{
	/* what was asked for, which is read again if its zone is another */
	Datum	   *values;
	bool	   *nulls;
	Jsonb	   *object;			/* where they are from, or NULL */
	pg_tz	   *read_in;		/* the zone in which they were read from it */

	TaskSpec	spec;
	TimestampTz first_run;		/* if it is new, or has new times */
	char	   *callback;		/* schema-qualified, or an alias */
	bool		is_alias;
	int			element;		/* its place in add_tasks' array */
	bool		named;			/* its task_id was given */
	bool		seen;			/* and there was a task of that */
	int64		id;				/* if not, the one it is to have */
	Datum		task_id;		/* what is returned */

	/* what it runs after, see add_after.c */
	int			nparents;
	int			max_parents;
	NewParent  *parents;
	int			nsorted;		/* so many of them are in the order of their
								 * names */
	bool		own_sorted;		/* all that it names itself */
	bool		in_vain;		/* it waits for a failure of none */
	bool		followed;		/* others of the call run after it */
	bool		resolving;		/* whether it recurs is being found out */
	bool		resolved;		/* and was */
	int			asked;			/* so many parents were looked at for that */
	struct NewTask *asking;		/* the one for which that is done, or NULL */
	Written		written;
	bool		guarded;		/* it could close a circle with others */
	bool		rejoin;			/* what it runs after may have changed */
	bool		was_lasting;	/* before it was replaced */
	bool		other_status;	/* it waits for other ends than before */
	int64		row_id;			/* if it is there */
} NewTask;

/* The alias that was looked up last: the next task is likely to have the same. */
typedef struct LastAlias
{
	MemoryContext context;		/* what is here lives in it */
	Oid			owner;
	char	   *callback;		/* NULL before the first */
	char	   *target;			/* what it stands for, or NULL */
} LastAlias;

/* A task that is there and is to wait for one of a call: before. */
typedef struct Before
{
	int64		id;
	char	   *task_id;
	NewTask    *task;			/* that it waits for */
	bool		unlocked;		/* this process runs one that it waits for */
} Before;

/* What a call joins, if it does. */
typedef struct Joining
{
	struct Adding *adding;
	NewTask    *tasks;			/* by owner and task_id */
	int			n;
	List	   *befores;		/* of Before */
} Joining;

/* A call of add_task or add_tasks. */
typedef struct Adding
{
	Store	   *store;
	TimestampTz now;			/* when it began: the time of all that have no
								 * other */
	bool		replace_existing;	/* if a task does not say */
	SpecReader	reader;			/* for add_tasks */
	MemoryContext scratch;		/* for what is not kept */
	LastAlias	last;
	Joining    *joining;		/* or NULL */
	int		   *element;		/* which one an error is about; or NULL */
	bool		claimed;		/* something was added or replaced */
} Adding;

extern void add_prepare(Adding *adding, NewTask *task);
extern void add_write(Adding *adding, NewTask *task);

/* ------------------------------------------------------------------------
 * lock_order.c
 */
typedef struct LockOrder LockOrder;

extern LockOrder *lock_order_begin(void);
extern void lock_order_add(LockOrder *order, Oid owner, char *task_id, int64 id);
extern void lock_order_take(LockOrder *order, Store *store);
extern void lock_with_followers(Store *store, const int64 *ids, int n);

/* ------------------------------------------------------------------------
 * add_after.c
 */
extern bool add_after_is_joined(const NewTask *task);
extern bool add_after_joins(Jsonb *tasks);
extern void add_after_at(const Adding *adding, const NewTask *task);
extern void add_after_plan(Adding *adding, NewTask *tasks, int n);

/* ------------------------------------------------------------------------
 * add_edges.c
 */
extern void add_edges_write(Adding *adding, NewTask *tasks, int n);

/* ------------------------------------------------------------------------
 * api_owner.c
 */
extern void owner_reassign_owned(Store *store, Oid owner, Oid new_owner);
extern void owner_drop_owned(Store *store, Oid owner);

/* ------------------------------------------------------------------------
 * view_writes.c
 */
extern void view_writes_init(void);

#endif							/* TASKSHED_API_API_H */
