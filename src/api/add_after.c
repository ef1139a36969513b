/*-------------------------------------------------------------------------
 *
 * add_after.c
 *		What the tasks of a call are to run after: after, after_group and before.
 *
 * All is found out before anything is written: which tasks are meant, those of the same call
 * included, and whether a task recurs, which follows from those that it runs after.  Then
 * everything that will be needed is locked in one order, the tasks are written
 * (new_task.c), and behind them the edges that join them (add_edges.c).
 *
 * A task that runs after others begins to wait when its row is written.  One that
 * is replaced keeps the edges that it has already, and with them what has been gathered for
 * it: a deploy between the ends of two tasks loses nothing.
 *
 * Two calls could each add one half of a circle, unseen by the other.  So what could close
 * one is done by one transaction of an owner at a time: giving tasks that are there already
 * something to run after.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "api/api.h"

/* A task may run after so many others. */
#define MAX_PARENTS		100000

/* Return whether a task is to run after or before others. */
bool
add_after_is_joined(const NewTask *task)
{
	return !task->nulls[ADD_AFTER] || !task->nulls[ADD_AFTER_GROUP] || !task->nulls[ADD_BEFORE];
}

/* Return whether any element of add_tasks' array is; what is no object is refused later. */
bool
add_after_joins(Jsonb *tasks)
{
	static const int keys[] = {ADD_AFTER, ADD_AFTER_GROUP, ADD_BEFORE};
	JsonbIterator *it = JsonbIteratorInit(&tasks->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM || value.type != jbvBinary ||
			!JsonContainerIsObject(value.val.binary.data))
			continue;
		for (int i = 0; i < lengthof(keys); i++)
		{
			JsonbValue	found;
			const char *name = spec_params[keys[i]].name;

			if (getKeyJsonValueFromContainer(value.val.binary.data, name, strlen(name), &found) != NULL)
				return true;
		}
	}
	return false;
}

static int
add_after_text_cmp(const text *a, const text *b)
{
	return varstr_cmp(VARDATA_ANY(a), VARSIZE_ANY_EXHDR(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b),
					  C_COLLATION_OID);
}

static bool
add_after_same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Find a task of the call by its owner and name; NULL if there is none. */
static NewTask *
add_after_find_new(const Joining *join, Oid owner, const text *task_id)
{
	int			low = 0;
	int			high = join->n - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		NewTask    *task = &join->tasks[middle];
		int			cmp = task->spec.owner != owner ? (task->spec.owner < owner ? -1 : 1) :
		add_after_text_cmp(task->spec.task_id, task_id);

		if (cmp == 0)
			return task;
		if (cmp < 0)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

/* Note which task of the call an error will be about. */
void
add_after_at(const Adding *adding, const NewTask *task)
{
	if (adding->element != NULL)
		*adding->element = task->element;
}

/* Have a task run after another one: 22023 if it is itself, 54000 if these are too many. */
static NewParent *
add_after_add(NewTask *child)
{
	NewParent  *parent;

	if (child->nparents == MAX_PARENTS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("task \"%s\" would run after too many others", text_to_cstring(child->spec.task_id)),
				 errdetail("A task can run after at most %d others.", MAX_PARENTS),
				 errhint("Have some of them be followed by a task of their own, and run after that.")));
	if (child->nparents == child->max_parents)
	{
		child->max_parents = Max(4, 2 * child->max_parents);
		child->parents = child->parents == NULL ?
			palloc(child->max_parents * sizeof(NewParent)) :
			repalloc_huge(child->parents, child->max_parents * sizeof(NewParent));
	}
	parent = &child->parents[child->nparents++];
	memset(parent, 0, sizeof(NewParent));
	return parent;
}

static void
add_after_add_new(NewTask *child, NewTask *task)
{
	NewParent  *parent;

	if (task == child)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task \"%s\" cannot run after itself", text_to_cstring(child->spec.task_id)),
				 errhint("Leave it out of after and before.")));
	parent = add_after_add(child);
	parent->task = task;
	parent->task_id = task->spec.task_id;
	task->followed = true;
}

static void
add_after_add_old(NewTask *child, const TaskRow *row, bool named)
{
	NewParent  *parent = add_after_add(child);

	parent->id = ROW_GET(Int64, row, task_id);
	parent->task_id = DatumGetTextPP(ROW_DATUM(row, task_task_id));
	parent->recurring = task_is_recurring(row);
	parent->named = named;
}

static int
add_after_parent_cmp(const void *a, const void *b)
{
	const NewParent *x = a;
	const NewParent *y = b;
	int			cmp = add_after_text_cmp(x->task_id, y->task_id);

	if (cmp != 0)
		return cmp;
	return x->id > y->id ? -1 : x->id < y->id ? 1 : 0;
}

/*
 * Return the place of the first parent of a name among n that are sorted; -1 if there is
 * none.
 */
static int
add_after_search(const NewParent *parents, int n, const text *task_id)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (add_after_text_cmp(parents[middle].task_id, task_id) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n && add_after_same_text(parents[low].task_id, task_id) ? low : -1;
}

/*
 * Find what a task that is there has run after already, and what is gone by now: what has
 * come of it is kept.  They are returned by their names.
 */
static NewParent *
add_after_find_gone(Store *store, const NewTask *child, int *n)
{
	int			size = 16;
	NewParent  *gone = palloc0(size * sizeof(NewParent));
	TaskRow		row;
	EdgeScan	scan;
	EdgeRow		edge;

	*n = 0;
	if (!store_find_task(store, child->spec.owner, PointerGetDatum(child->spec.task_id), &row))
		return gone;
	edges_begin(store, &scan, ROW_GET(Int64, &row, task_id), PG_INT64_MAX, false);
	while (edges_next(&scan, &edge))
	{
		CHECK_FOR_INTERRUPTS();
		if (!ROW_IS_TRUE(&edge, edge_gone) || ROW_ISNULL(&edge, edge_done_at))
			continue;
		if (*n == size)
		{
			size *= 2;
			gone = repalloc_huge(gone, size * sizeof(NewParent));
		}
		memset(&gone[*n], 0, sizeof(NewParent));
		gone[*n].id = ROW_GET(Int64, &edge, edge_parent);
		gone[(*n)++].task_id = DatumGetTextPCopy(ROW_DATUM(&edge, edge_task_id));
	}
	edges_end(&scan);
	qsort(gone, *n, sizeof(NewParent), add_after_parent_cmp);
	return gone;
}

pg_noreturn static void
add_after_unknown(const text *task_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("task \"%s\" does not exist", text_to_cstring(task_id)),
			 errhint("A one-off task that has succeeded is gone: schedule both in one transaction, or in one call of taskshed.add_tasks().")));
}

static int
add_after_datum_cmp(const void *a, const void *b)
{
	return add_after_text_cmp(DatumGetTextPP(*(const Datum *) a), DatumGetTextPP(*(const Datum *) b));
}

/* Return the names that a parameter has, in order: 22023 if one is given twice. */
static Datum *
add_after_names(const NewTask *task, int param, int *n)
{
	Datum	   *names;

	deconstruct_array(DatumGetArrayTypeP(task->values[param]), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, NULL, n);
	qsort(names, *n, sizeof(Datum), add_after_datum_cmp);
	for (int i = 1; i < *n; i++)
	{
		if (add_after_datum_cmp(&names[i - 1], &names[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("task \"%s\" is given twice in %s", TextDatumGetCString(names[i]),
							spec_params[param].name),
					 errhint("Name each task once.")));
	}
	return names;
}

/* Find the tasks that are named in after. */
static void
add_after_plan_named(const Joining *join, NewTask *child)
{
	Store	   *store = join->adding->store;
	int			n;
	Datum	   *names = add_after_names(child, ADD_AFTER, &n);
	int			ngone;
	NewParent  *gone = NULL;

	for (int i = 0; i < n; i++)
	{
		text	   *name = DatumGetTextPP(names[i]);
		NewTask    *new = add_after_find_new(join, child->spec.owner, name);
		TaskRow		row;
		int			at;

		if (new != NULL)
			add_after_add_new(child, new);
		else if (store_find_task(store, child->spec.owner, names[i], &row))
			add_after_add_old(child, &row, true);
		else
		{
			if (gone == NULL)
				gone = add_after_find_gone(store, child, &ngone);
			at = add_after_search(gone, ngone, name);
			if (at < 0)
				add_after_unknown(name);
			*add_after_add(child) = gone[at];
		}
	}
	child->nsorted = child->nparents;	/* as the names are */
}

/* Return whether a task is one of those that a child runs after already, and that are sorted. */
static bool
add_after_has(const NewTask *child, const text *task_id)
{
	return add_after_search(child->parents, child->nsorted, task_id) >= 0;
}

/* Find the tasks of the group in after_group, as the call leaves it. */
static void
add_after_plan_group(const Joining *join, NewTask *child)
{
	Store	   *store = join->adding->store;
	text	   *group = DatumGetTextPP(child->values[ADD_AFTER_GROUP]);
	int			n;
	int64	   *ids = store_find_group(store, child->spec.owner, PointerGetDatum(group), &n);

	for (int i = 0; i < n; i++)
	{
		TaskRow		row;
		text	   *name;

		CHECK_FOR_INTERRUPTS();
		if (!store_get_task(store, ids[i], &row))
			continue;
		name = DatumGetTextPP(ROW_DATUM(&row, task_task_id));
		if (add_after_find_new(join, child->spec.owner, name) == NULL &&
			!add_after_has(child, name))
			add_after_add_old(child, &row, false);
	}
	for (int i = 0; i < join->n; i++)
	{
		NewTask    *task = &join->tasks[i];

		if (task != child && task->spec.owner == child->spec.owner && !task->nulls[ADD_GROUP_ID] &&
			add_after_same_text(DatumGetTextPP(task->values[ADD_GROUP_ID]), group) &&
			!add_after_has(child, task->spec.task_id))
			add_after_add_new(child, task);
	}
}

/*
 * Return whether the run in this process is one that a task waits for: then that waits until
 * the run's end, whatever else happens, and needs no lock.
 */
static bool
add_after_waits_for_me(Store *store, int64 id)
{
	AlarmRow	alarm;
	EdgeRow		edge;

	return ts_my_worker != NULL && edges_get(store, id, ts_my_worker->running_id, &edge) &&
		ROW_ISNULL(&edge, edge_done_at) && store_get_alarm(store, id, &alarm) &&
		!ROW_ISNULL(&alarm, alarm_waiting_since);
}

/* Find the tasks that are named in before. */
static void
add_after_plan_before(Joining *join, NewTask *task)
{
	Store	   *store = join->adding->store;
	int			n;
	Datum	   *names = add_after_names(task, ADD_BEFORE, &n);

	for (int i = 0; i < n; i++)
	{
		text	   *name = DatumGetTextPP(names[i]);
		NewTask    *new = add_after_find_new(join, task->spec.owner, name);
		TaskRow		row;
		Before	   *before;

		if (new != NULL)
		{
			/*
			 * (one that is given twice in before is an error: only its own
			 * can be the same)
			 */
			if (!new->own_sorted)
			{
				qsort(new->parents, new->nparents, sizeof(NewParent), add_after_parent_cmp);
				new->nsorted = new->nparents;
				new->own_sorted = true;
			}
			if (!add_after_has(new, task->spec.task_id))
				add_after_add_new(new, task);
			continue;
		}
		if (!store_find_task(store, task->spec.owner, names[i], &row))
			add_after_unknown(name);
		before = palloc0(sizeof(Before));
		before->id = ROW_GET(Int64, &row, task_id);
		before->task_id = text_to_cstring(name);
		before->task = task;
		before->unlocked = add_after_waits_for_me(store, before->id);
		join->befores = lappend(join->befores, before);
		task->followed = true;
	}
}

/* Find out whether a task recurs, when that is known of all that it runs after: 22023. */
static void
add_after_infer(NewTask *task)
{
	TaskSpec   *spec = &task->spec;
	bool		all = true;

	for (int i = 0; i < task->nparents; i++)
	{
		NewParent  *parent = &task->parents[i];

		if (parent->task != NULL)
			parent->recurring = parent->task->spec.recurring;
		all = all && parent->recurring;
	}
	task->resolving = false;
	task->resolved = true;
	if (task->nparents == 0)
		return;
	if (times_recur(spec->every != NULL, spec->schedule != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a task that runs after others cannot have an interval or a schedule"),
				 errhint("It runs whenever they have ended. Leave out every and schedule, or after and after_group.")));
	if (spec->recurring && !all)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task \"%s\" cannot recur, since not all tasks that it runs after do",
						text_to_cstring(spec->task_id)),
				 errhint("Leave out run_type: it then waits for them once.")));
	if (task->nulls[ADD_RUN_TYPE])
		spec->recurring = spec->lasting = all;
}

/*
 * Find out whether a task recurs, which follows from those that it runs after, of which some
 * may have to be found out first; the way to these may be a long one, so it is kept in the
 * tasks and not on the stack.  22023 if a task says otherwise, or would wait for itself.
 */
static void
add_after_resolve(const Adding *adding, NewTask *task)
{
	while (task != NULL)
	{
		NewTask    *first = NULL;

		CHECK_FOR_INTERRUPTS();
		add_after_at(adding, task);
		task->resolving = true;
		for (; !task->resolved && first == NULL && task->asked < task->nparents; task->asked++)
		{
			NewTask    *parent = task->parents[task->asked].task;

			if (parent != NULL && !parent->resolved)
				first = parent;
		}
		if (first != NULL)
			add_after_at(adding, first);
		if (first != NULL && first->resolving)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("task \"%s\" would wait for itself", text_to_cstring(first->spec.task_id)),
					 errhint("It runs after a task that runs after it, perhaps with others in between.")));
		if (first != NULL)
		{
			first->asking = task;
			task = first;
			continue;
		}
		if (!task->resolved)
			add_after_infer(task);
		task->resolving = false;
		task = task->asking;
	}
}

/* Lock what the call will need, in one order. */
static void
add_after_lock(Joining *join)
{
	Store	   *store = join->adding->store;
	LockOrder  *order = lock_order_begin();
	ListCell   *cell;

	for (int i = 0; i < join->n; i++)
	{
		const NewTask *task = &join->tasks[i];
		TaskRow		row;

		if (task->seen && store_find_task(store, task->spec.owner,
										  PointerGetDatum(task->spec.task_id), &row))
			lock_order_add(order, task->spec.owner, text_to_cstring(task->spec.task_id),
						   ROW_GET(Int64, &row, task_id));
		for (int j = 0; j < task->nparents; j++)
		{
			if (task->parents[j].task == NULL)
				lock_order_add(order, task->spec.owner, text_to_cstring(task->parents[j].task_id),
							   task->parents[j].id);
		}
	}
	foreach(cell, join->befores)
	{
		const Before *before = lfirst(cell);

		if (!before->unlocked)
			lock_order_add(order, before->task->spec.owner, before->task_id, before->id);
	}
	lock_order_take(order, store);
}

/*
 * Have no other transaction give tasks of that owner something to run after, if this call
 * could close a circle with it: where it does so with a task that is there.
 */
static void
add_after_guard(Joining *join)
{
	Oid			last = InvalidOid;
	ListCell   *cell;

	foreach(cell, join->befores)
	{
		NewTask    *task = ((const Before *) lfirst(cell))->task;

		task->guarded = (task->seen || task->nparents > 0);
	}
	for (int i = 0; i < join->n; i++)
	{
		NewTask    *task = &join->tasks[i];

		task->guarded = task->guarded || (task->seen && task->nparents > 0);
		if (task->guarded && task->spec.owner != last)
			LockDatabaseObject(RelationGetRelid(store_edge(join->adding->store)),
							   task->spec.owner, 0, ExclusiveLock);
		if (task->guarded)
			last = task->spec.owner;
	}
}

/*
 * Find out what the tasks of a call are to run after, and lock all that this needs.  They
 * are in the order of owner and task_id, and not written yet.  Errors: 42704 no such task,
 * 22023 what cannot be, 54000 too many.
 */
void
add_after_plan(Adding *adding, NewTask *tasks, int n)
{
	Joining    *join = palloc0(sizeof(Joining));

	join->adding = adding;
	join->tasks = tasks;
	join->n = n;
	adding->joining = join;
	for (int i = 0; i < n; i++)
	{
		add_after_at(adding, &tasks[i]);
		if (!tasks[i].nulls[ADD_AFTER])
			add_after_plan_named(join, &tasks[i]);
		if (!tasks[i].nulls[ADD_AFTER_GROUP])
			add_after_plan_group(join, &tasks[i]);
	}
	for (int i = 0; i < n; i++)
	{
		add_after_at(adding, &tasks[i]);
		if (!tasks[i].nulls[ADD_BEFORE])
			add_after_plan_before(join, &tasks[i]);
	}
	for (int i = 0; i < n; i++)
	{
		add_after_at(adding, &tasks[i]);
		tasks[i].in_vain = (tasks[i].nparents == 0 && !tasks[i].nulls[ADD_AFTER_GROUP] &&
							!tasks[i].nulls[ADD_AFTER_STATUS] &&
							word_value(after_status_words, tasks[i].values[ADD_AFTER_STATUS],
									   AFTER_SUCCEEDED) == AFTER_FAILED);
		if (!tasks[i].resolved)
			add_after_resolve(adding, &tasks[i]);
	}
	add_after_guard(join);
	add_after_lock(join);
}
