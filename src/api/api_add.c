/*-------------------------------------------------------------------------
 *
 * api_add.c
 *		add_task and add_tasks.
 *
 * Tasks that the caller has named are written in the order of their names, as
 * all bulk calls do it, so that two of them cannot deadlock.  Where tasks are to run after
 * others all are written like that, and then what joins them.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "api/api.h"

PG_FUNCTION_INFO_V1(ts_add_task);
Datum
ts_add_task(PG_FUNCTION_ARGS)
{
	Datum		values[ADD_NPARAMS];
	bool		nulls[ADD_NPARAMS];
	NewTask		task = {.values = values,.nulls = nulls};
	Adding		adding = {0};

	check_writable("taskshed.add_task()");
	Assert(PG_NARGS() == ADD_NPARAMS);
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = fcinfo->args[i].isnull;
	}

	adding.now = GetCurrentTimestamp();
	adding.replace_existing = true;
	adding.scratch = adding.last.context = CurrentMemoryContext;
	adding.store = store_open(RowExclusiveLock);
	add_prepare(&adding, &task);
	if (add_after_is_joined(&task))
		add_after_plan(&adding, &task, 1);
	add_write(&adding, &task);
	add_edges_write(&adding, &task, 1);
	store_close(adding.store, NoLock);
	if (adding.claimed)
		check_warn_if_waiting();
	PG_RETURN_DATUM(task.task_id);
}

/* Say which element of add_tasks' array an error is about. */
static void
add_element_context(void *arg)
{
	errcontext("element %d of tasks", *(int *) arg);
}

/* Turn one element of add_tasks' array into a task, in the current memory context. */
static void
add_parse_element(Adding *adding, NewTask *task, Jsonb *object)
{
	bool		given[ADD_NPARAMS];

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("each element of tasks must be a JSON object")));
	spec_check_keys(object, given);

	task->object = object;
	task->values = palloc(ADD_NPARAMS * sizeof(Datum));
	task->nulls = palloc(ADD_NPARAMS * sizeof(bool));
	task->read_in = session_timezone;
	spec_read(&adding->reader, object, task->read_in, task->values, task->nulls);
	add_prepare(adding, task);
}

/* Compare as named tasks are written: by owner and name. */
static int
new_task_cmp(const void *a, const void *b)
{
	const NewTask *x = a;
	const NewTask *y = b;
	text	   *xid = x->spec.task_id;
	text	   *yid = y->spec.task_id;

	if (x->spec.owner != y->spec.owner)
		return x->spec.owner < y->spec.owner ? -1 : 1;
	return varstr_cmp(VARDATA_ANY(xid), VARSIZE_ANY_EXHDR(xid),
					  VARDATA_ANY(yid), VARSIZE_ANY_EXHDR(yid), C_COLLATION_OID);
}

PG_FUNCTION_INFO_V1(ts_add_tasks);
Datum
ts_add_tasks(PG_FUNCTION_ARGS)
{
	Jsonb	   *array;
	Adding		adding = {0};
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	NewTask    *named;
	Datum	   *ids;
	bool		joins;
	ErrorContextCallback context;
	int			n;
	int			nnamed = 0;
	int			element = 0;
	MemoryContext old = CurrentMemoryContext;
	MemoryContext parsing = AllocSetContextCreate(old, "taskshed tasks", ALLOCSET_DEFAULT_SIZES);
	MemoryContext writing = AllocSetContextCreate(old, "taskshed task", ALLOCSET_DEFAULT_SIZES);

	check_writable("taskshed.add_tasks()");
	/* jsonb_agg makes NULL of no rows */
	if (PG_ARGISNULL(0))
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	array = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tasks must be a JSON array of objects")));

	n = JB_ROOT_COUNT(array);
	named = MemoryContextAllocHuge(old, (n + 1) * sizeof(NewTask));
	ids = palloc((n + 1) * sizeof(Datum));
	adding.now = GetCurrentTimestamp();
	adding.replace_existing = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	adding.scratch = writing;
	adding.last.context = old;
	spec_init_reader(&adding.reader);

	context.callback = add_element_context;
	context.arg = &element;
	context.previous = error_context_stack;
	error_context_stack = &context;
	adding.element = &element;
	adding.store = store_open(RowExclusiveLock);

	/* those without a name as they come, unless tasks are to run after others */
	joins = add_after_joins(array);
	it = JsonbIteratorInit(&array->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		NewTask    *task = &named[nnamed];

		if (token != WJB_ELEM)
			continue;
		CHECK_FOR_INTERRUPTS();
		memset(task, 0, sizeof(NewTask));
		task->element = ++element;
		MemoryContextSwitchTo(parsing);
		add_parse_element(&adding, task, JsonbValueToJsonb(&value));
		if (task->named || joins)
			nnamed++;
		else
		{
			MemoryContextSwitchTo(writing);
			add_write(&adding, task);
			MemoryContextSwitchTo(old);
			ids[element - 1] = datumCopy(task->task_id, false, -1);
			if (nnamed == 0)
				MemoryContextReset(parsing);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(writing);
	}

	/* the others in an order in which two calls cannot wait for each other */
	qsort(named, nnamed, sizeof(NewTask), new_task_cmp);
	for (int i = 1; i < nnamed; i++)
	{
		element = Max(named[i - 1].element, named[i].element);
		if (new_task_cmp(&named[i - 1], &named[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("task_id \"%s\" is given twice",
							text_to_cstring(named[i].spec.task_id))));
	}
	if (joins)
		add_after_plan(&adding, named, nnamed);
	for (int i = 0; i < nnamed; i++)
	{
		element = named[i].element;
		MemoryContextSwitchTo(writing);
		add_write(&adding, &named[i]);
		if (!joins)
			add_edges_write(&adding, &named[i], 1);
		MemoryContextSwitchTo(old);
		ids[element - 1] = datumCopy(named[i].task_id, false, -1);
		MemoryContextReset(writing);
	}
	if (joins)
		add_edges_write(&adding, named, nnamed);
	store_close(adding.store, NoLock);
	error_context_stack = context.previous;
	if (adding.claimed)
		check_warn_if_waiting();

	PG_RETURN_ARRAYTYPE_P(construct_array(ids, n, TEXTOID, -1, false, TYPALIGN_INT));
}
