// What of Apache ECharts the dashboard uses; `build.sh` makes echarts.js of it.
export { init, getInstanceByDom, version } from 'echarts/core';
import { use } from 'echarts/core';
import {
    BarChart, CustomChart, HeatmapChart, LineChart, ParallelChart, ScatterChart,
} from 'echarts/charts';
import {
    AriaComponent, DataZoomComponent, GridComponent, LegendComponent, ParallelComponent,
    TooltipComponent, VisualMapComponent,
} from 'echarts/components';
import { CanvasRenderer } from 'echarts/renderers';

use([
    BarChart, CustomChart, HeatmapChart, LineChart, ParallelChart, ScatterChart,
    AriaComponent, DataZoomComponent, GridComponent, LegendComponent, ParallelComponent,
    TooltipComponent, VisualMapComponent, CanvasRenderer,
]);
